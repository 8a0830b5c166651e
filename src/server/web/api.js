// The server's API: JSON, and server-sent events as they come.
const keyOf = () => sessionStorage.getItem("plumb.key") ?? "";

export class ApiError extends Error {
  constructor(status, message, retry) {
    super(message);
    this.status = status;
    this.retry = retry;
  }
}

async function failure(response) {
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).error.message;
  } catch { /* no JSON: the status says enough */ }
  return new ApiError(response.status, message, Number(response.headers.get("Retry-After")) || 0);
}

function options(body, signal) {
  const headers = {};
  if (keyOf()) headers.Authorization = "Bearer " + keyOf();
  if (!body) return {headers, signal};
  return {method: "POST", headers: {...headers, "Content-Type": "application/json"}, body: JSON.stringify(body), signal};
}

export async function call(path, body, signal) {
  const response = await fetch(path, options(body, signal));
  if (!response.ok) throw await failure(response);
  return response.json();
}

// Yields the data of each event.
export async function* stream(path, body, signal) {
  const response = await fetch(path, options(body, signal));
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  while (true) {
    const {value, done} = await reader.read();
    if (done) break;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((l) => l.startsWith("data: ")).map((l) => l.slice(6)).join("\n");
      if (data === "[DONE]") return;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new ApiError(parsed.error.code, parsed.error.message, 0);
      yield parsed;
    }
  }
  throw new ApiError(0, "the connection ended before the answer did", 0);
}
