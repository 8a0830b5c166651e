# cmake -DOUTPUT=x.cpp -DHEADER=app/x.h -DFUNCTION=f "-DFILES=a.py;b.h" -P embed.cmake
# Writes a source whose function gives the files' names and text, so that the program needs no folder beside it.
set(entries "")
foreach(file IN LISTS FILES)
  file(READ ${file} text)
  get_filename_component(name ${file} NAME)
  string(APPEND entries "    {\"${name}\", R\"~~(${text})~~\"},\n")
endforeach()
set(source "// Made by cmake/embed.cmake.\n#include \"${HEADER}\"\n\nnamespace plumb {\n")
string(APPEND source "std::span<const EmbeddedFile> ${FUNCTION}() {\n  static constexpr EmbeddedFile kFiles[] = {\n${entries}  };\n  return kFiles;\n}\n}\n")
file(WRITE ${OUTPUT} "${source}")
