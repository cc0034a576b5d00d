"use strict";
// The pages work without this. It adds more results as one scrolls, and the keyboard: arrows, Escape and "/".

const watch = new IntersectionObserver(([entry]) => entry.isIntersecting && loadMore(entry.target), { rootMargin: "3000px" });

/** Put the results of the next page below those of this one, and make the address name all of them. */
async function loadMore(link) {
  watch.unobserve(link);
  const answer = await fetch(link.href).catch(() => null);
  if (!answer?.ok) return; // the link is still there to be followed
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const results = document.getElementById("results"), added = page.getElementById("results");
  results.append(...added.children);
  history.replaceState(null, "", added.dataset.here + location.hash);
  document.getElementById("status").textContent = `${results.children.length} results, best first`;
  const next = page.getElementById("more");
  if (next) {
    link.replaceWith(next);
    watch.observe(next);
  } else link.remove();
}

document.querySelectorAll("#more").forEach((link) => watch.observe(link));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, video")) return;
  if (event.key === "/") {
    event.preventDefault();
    const box = document.getElementById("q");
    box.focus();
    box.select();
  }
  if (!document.querySelector(".item")) return;
  const link = document.querySelector({ ArrowLeft: "a[rel=prev]", ArrowRight: "a[rel=next]" }[event.key] ?? "none");
  if (link) location.replace(link.href); // so that "back" leads to the results from any of them
  if (event.key === "Escape") {
    const back = document.getElementById("back");
    if (back) location.href = back.href;
    else history.back();
  }
});
