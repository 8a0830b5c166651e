# Tests of whole models against the oracles of tests/oracle; included by tests/CMakeLists.txt, which names PLUMB_PYTHON.
# Each drives the command in $PLUMB. The two that keep the memory busy longest do not run side by side.
function(plumb_model_test name script)
  add_test(NAME ${name} COMMAND ${PLUMB_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/${script})
  set_tests_properties(${name} PROPERTIES LABELS oracle TIMEOUT 900 PROCESSORS 2
                       ENVIRONMENT "PLUMB=$<TARGET_FILE:plumb>;PYTHONUNBUFFERED=1;PYTHONDONTWRITEBYTECODE=1")
endfunction()

add_test(NAME oracle.selfcheck COMMAND ${PLUMB_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/oracle_test.py)
set_tests_properties(oracle.selfcheck PROPERTIES LABELS oracle TIMEOUT 300
                     ENVIRONMENT "PYTHONUNBUFFERED=1;PYTHONDONTWRITEBYTECODE=1")
plumb_model_test(oracle.models models_test.py)
plumb_model_test(oracle.greedy greedy_test.py)
plumb_model_test(oracle.tinyllama tinyllama_test.py)
plumb_model_test(oracle.bits bits_test.py)
plumb_model_test(oracle.mpi mpi_test.py)
plumb_model_test(oracle.cli cli_test.py)
plumb_model_test(oracle.diff diff_test.py)
plumb_model_test(oracle.diagnose diagnose_test.py)
plumb_model_test(oracle.cases cases_test.py)
plumb_model_test(oracle.weights weights_test.py)
plumb_model_test(oracle.report report_test.py)
plumb_model_test(oracle.check check_test.py)
plumb_model_test(oracle.tutorial tutorial_test.py)
plumb_model_test(oracle.tap tap_test.py)
plumb_model_test(oracle.http http_test.py)
plumb_model_test(oracle.record record_test.py)
plumb_model_test(oracle.eval_callback eval_callback_test.py)
plumb_model_test(oracle.plumbbench plumbbench_test.py)
plumb_model_test(oracle.probe probe_test.py)
plumb_model_test(oracle.server server_test.py)
plumb_model_test(oracle.web web_test.py)
plumb_model_test(oracle.chat chat_test.py)
plumb_model_test(oracle.serve serve_test.py)
plumb_model_test(oracle.serve_surface serve_surface_test.py)
plumb_model_test(oracle.serve_tools serve_tools_test.py)
plumb_model_test(oracle.serve_schema serve_schema_test.py)
plumb_model_test(oracle.serve_scores serve_scores_test.py)
plumb_model_test(oracle.serve_plumb serve_plumb_test.py)
plumb_model_test(oracle.device_lost device_lost_test.py)
# The load of bench/serve_load.py for a quarter of a minute; ten minutes of it are run by hand.
add_test(NAME oracle.serve_load COMMAND ${PLUMB_PYTHON} ${CMAKE_SOURCE_DIR}/bench/serve_load.py --seconds 15 --slow-heads 300
                                        --slow-seconds 3 --body-mib 64 --requests 12 --bad-values 4 --memory-mib 64 --plumb $<TARGET_FILE:plumb>)
set_tests_properties(oracle.serve_load PROPERTIES LABELS oracle TIMEOUT 300 PROCESSORS 2)
# These run one program at a time and may share the machine.
set_tests_properties(oracle.diff oracle.weights oracle.report oracle.check oracle.tutorial oracle.tap oracle.http oracle.record
                     oracle.eval_callback oracle.plumbbench oracle.probe oracle.diagnose oracle.cases PROPERTIES PROCESSORS 1)
