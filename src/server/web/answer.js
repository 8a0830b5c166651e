// One answer as it comes: from the chat endpoint, or, behind a text that stands already, from the completions endpoint.
import {call, stream} from "./api.js";
import {fromChat, fromText} from "./tokens.js";

function sampling(s) {
  const body = {stream: true, stream_options: {include_usage: true}, max_tokens: s.max_tokens, temperature: s.temperature, top_k: s.top_k,
    top_p: s.top_p, min_p: s.min_p, repeat_penalty: s.repeat_penalty, plumb: {margin: true}};
  if (s.seed >= 0) body.seed = s.seed;
  const stops = s.stop.split("\n").filter((line) => line !== "");
  if (stops.length > 0) body.stop = stops;
  return body;
}

export const messagesOf = (nodes, system) => (system ? [{role: "system", content: system}] : [])
  .concat(nodes.map((n) => ({role: n.role, content: n.content})));

export const chatRequest = (messages, settings) => ({...sampling(settings), messages, logprobs: true, top_logprobs: 5});

// Fills node.content, .thought, .tokens, .stats while it comes; `changed` after each event.
export async function answer(node, messages, settings, signal, changed) {
  const begun = performance.now(), prefix = node.content;
  let events;
  if (prefix) {
    const {prompt} = await call("/apply-template", {messages}, signal);
    events = stream("/v1/completions", {...sampling(settings), prompt: prompt + prefix, logprobs: 5}, signal);
  } else {
    events = stream("/v1/chat/completions", chatRequest(messages, settings), signal);
  }
  node.tokens = node.tokens ?? [];
  node.stats = {};
  for await (const event of events) {
    const choice = event.choices?.[0];
    const text = choice?.delta?.content ?? choice?.text ?? "";
    if (node.stats.first === undefined && (text || choice?.delta?.reasoning_content)) node.stats.first = performance.now() - begun;
    node.content += text;
    if (choice?.delta?.reasoning_content) node.thought = (node.thought ?? "") + choice.delta.reasoning_content;
    if (choice?.logprobs) node.tokens.push(...(choice.logprobs.content ? fromChat(choice.logprobs.content) : fromText(choice.logprobs)));
    if (choice?.finish_reason) node.stats.reason = choice.finish_reason;
    if (event.timings) node.stats.timings = event.timings;
    if (event.usage) node.stats.usage = event.usage;
    changed();
  }
}

export function statsText(stats) {
  if (!stats) return "";
  const t = stats.timings ?? {}, parts = [];
  if (stats.first !== undefined) parts.push(`first token ${(stats.first / 1000).toFixed(2)} s`);
  if (t.prompt_per_second) parts.push(`prompt ${t.prompt_per_second.toFixed(0)}/s`);
  if (t.predicted_per_second) parts.push(`answer ${t.predicted_per_second.toFixed(1)}/s`);
  if (stats.usage) parts.push(`${stats.usage.prompt_tokens} + ${stats.usage.completion_tokens} tokens, ${stats.usage.prompt_tokens_details?.cached_tokens ?? 0} cached`);
  if (t.cache_miss) parts.push(`cache of use up to token ${t.cache_miss.position}: there this text differs from the last one`);
  if (stats.reason === "length") parts.push("cut at the limit");
  return parts.join(" \u00b7 ");
}
