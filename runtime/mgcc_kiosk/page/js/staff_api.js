// The staff's endpoints (docs/serving.md), asked with the key.

import { ApiError } from "./api.js";

const TIMEOUT_MS = 15_000;

export class StaffApi {
  #key;

  constructor(key) {
    this.#key = key;
  }

  overview = async () => (await this.#call("GET", "api/staff")).json();
  cancel = (tag) => this.#call("DELETE", `api/staff/jobs/${tag}`);
  restart = (tag) => this.#call("DELETE", `api/staff/sessions/${tag}`);
  letIn = () => this.#call("POST", "api/pass");
  lock = () => this.#call("DELETE", "api/staff/pass");

  async #call(method, path) {
    let answer;
    try {
      answer = await fetch(path, {
        method, cache: "no-store", headers: { authorization: `Bearer ${this.#key}` }, signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch {
      throw new ApiError("offline", "no answer"); // a key that no header can carry is wrong, too
    }
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({}));
    throw new ApiError(error?.code ?? `http_${answer.status}`, error?.message ?? "");
  }
}
