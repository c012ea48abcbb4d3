// A page that follows its run: what has changed is asked for now and then, and put in the place of what was there.
const heard = document.querySelector("#heard");
if (heard) {
  const EVERY = 1500, live = heard.textContent;
  let version = "", results;
  const swap = html => {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    for (const part of fresh.querySelectorAll("[data-live]")) {
      const old = document.getElementById(part.id);
      if (!old || old.outerHTML === part.outerHTML) continue;
      old.replaceWith(part);
      enliven(part);
    }
  };
  const ask = async () => {
    const reply = await fetch("now?have=" + encodeURIComponent(version), { cache: "no-store" });
    if (!reply.ok) throw new Error((await reply.text()).slice(0, 600));
    const found = await reply.json();
    if (found.results !== (results ??= found.results)) { location.reload(); return; }
    if (found.html !== undefined) { swap(found.html); version = found.version; }
    heard.textContent = live;
    await globalThis.followSteps?.(found.steps);
    document.documentElement.dataset.version = version;
  };
  const follow = async () => {
    try { if (!document.hidden || !version) await ask(); }
    catch (error) { heard.textContent = error instanceof TypeError ? "The server does not answer: what is here is what was there last." : error.message; }
    setTimeout(follow, EVERY);
  };
  follow();
}
