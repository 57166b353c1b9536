/** The page's token: the developer's own, from a server on this machine, or one that is pasted. */

const KEY = "tailrace-token"; // in sessionStorage: gone with the tab

export class Access {
  #token = null;
  #asking = null;
  refused = false; // whether there was one that the server did not accept

  /** `ask(reason)` shows the field and resolves to what is pasted. */
  constructor({ base, ask }) {
    this.base = base;
    this.ask = ask;
  }

  /** The token; asks for one where there is none yet. */
  token = async () => {
    this.#token ??= sessionStorage.getItem(KEY);
    if (this.#token) return this.#token;
    this.#asking ??= this.#get().finally(() => (this.#asking = null)); // two requests, one question
    return this.#asking;
  };

  /** Forgets the token: the server did not accept it. */
  refuse() {
    if (this.#token === null) return; // two requests were refused for the same token
    this.refused = true;
    this.#token = null;
    sessionStorage.removeItem(KEY);
  }

  async #get() {
    const response = await fetch(new URL("dev/token", this.base), { cache: "no-store" });
    if (response.ok) {
      this.#token = (await response.json()).token;
    } else {
      const why = this.refused ? "The server did not accept this token. It may have expired." : "";
      this.#token = (await this.ask(why)).trim();
      sessionStorage.setItem(KEY, this.#token);
    }
    return this.#token;
  }
}
