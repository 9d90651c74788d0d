// The server's endpoints (docs/serving.md). A session needs nothing from the page: the server knows it by its cookie.

const TIMEOUT_MS = 15_000;
const RESET = 205; // Reset Content

/** An answer that is no success; `code` is of the server's table, or "offline" where there was no answer at all. */
export class ApiError extends Error {
  constructor(code, message, retryAfterS = 0) {
    super(message);
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

async function call(method, path, body, headers = {}) {
  const json = body !== undefined && !(body instanceof Blob);
  let answer;
  try {
    answer = await fetch(path, {
      method,
      cache: "no-store",
      headers: json ? { "content-type": "application/json", ...headers } : headers,
      body: json ? JSON.stringify(body) : body,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new ApiError("offline", "no answer");
  }
  if (answer.ok) return answer.headers.get("content-type") === "application/json" ? answer.json() : answer;
  const { error } = await answer.json().catch(() => ({}));
  throw new ApiError(error?.code ?? `http_${answer.status}`, error?.message ?? "", Number(answer.headers.get("retry-after")));
}

export const api = {
  info: () => call("GET", "api/info"),
  ready: () => call("GET", "ready"),
  session: () => call("GET", "api/session"),
  endSession: () => call("DELETE", "api/session"),
  newChat: (recipe) => call("POST", "api/chats", recipe ? { recipe } : {}),
  chat: (chat) => call("GET", `api/chats/${chat}`),
  recipe: (chat) => call("GET", `api/chats/${chat}/recipe`),
  turn: (chat, body) => call("POST", `api/chats/${chat}/turns`, body),
  redraw: (chat, turn, body) => call("POST", `api/chats/${chat}/turns/${turn}/redraw`, body),
  undo: (chat) => call("POST", `api/chats/${chat}/undo`, {}),
  job: (job) => call("GET", `api/jobs/${job}`),
  cancel: (job) => call("DELETE", `api/jobs/${job}`),
  /** Whether the page may go on: staff may have ended its session. */
  heartbeat: async () => (await call("POST", "api/heartbeat", {})).status !== RESET,
  takeaway: (png) => call("POST", "api/takeaways", png),
  letIn: (pass) => call("POST", "api/pass", {}, { authorization: `Bearer ${pass}` }),
  /** The picture at an address of the server, as a blob; null where it was dropped. */
  async picture(path) {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) }).catch(() => null);
    return answer?.ok ? answer.blob().catch(() => null) : null;
  },
};
