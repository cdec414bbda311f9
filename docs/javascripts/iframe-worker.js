// The search runs in a worker, and browsers start none for pages that are opened as files: there it runs in a hidden frame.
// The name of this file tells the plugin `offline` of mkdocs-material that it need not fetch one like it.
if (location.protocol === "file:") {
  const script = (content, source = "") => `<script ${source}>${content}</${"script"}>`;

  class FrameWorker extends EventTarget {
    constructor(address) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.answer = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.frame.srcdoc =
        script("window.postMessage = (data) => frameElement.answer(data)") +
        script("", `src="${new URL(address, location.href)}"`);
      this.frame.onload = () => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      };
      document.body.append(this.frame);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  }

  window.Worker = window.IFrameWorker = FrameWorker;
}
