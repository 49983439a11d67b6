// Filters the cards, and keeps no more than two of them ticked.

document.documentElement.classList.add("js");
const cards = [...document.querySelectorAll(".card")];
const filter = document.getElementById("filter");
const left = document.getElementById("left");
const compare = document.getElementById("compare");
const clear = document.getElementById("clear");
const chosen = document.getElementById("chosen");
const invitation = chosen ? chosen.textContent : "";
const boxes = [...document.querySelectorAll('.tick input')];
let order = []; // of the ticks: the first is the left one

function sift() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let seen = 0;
  for (const card of cards) {
    const found = words.every((word) => card.dataset.text.includes(word));
    card.hidden = !found;
    seen += found;
  }
  left.textContent = words.length ? `${seen} of ${cards.length}` : "";
}

function name(box) {
  return box.closest(".card").querySelector("h2").textContent;
}

function choose() {
  if (!compare) return;
  order = order.filter((box) => box.checked);
  for (const box of boxes) {
    if (box.checked && !order.includes(box)) order.push(box);
    box.disabled = order.length >= 2 && !box.checked;
  }
  if (order.length === 0) chosen.textContent = invitation;
  else if (order.length === 1) chosen.textContent = `${name(order[0])} and … one more`;
  else chosen.textContent = `${name(order[0])} and ${name(order[1])}`;
  compare.disabled = order.length !== 2;
  clear.hidden = order.length === 0;
  // A browser that comes back here fills in the ticks, and not their order.
  history.replaceState({ order: order.map((box) => box.value) }, "");
}

function remember() {
  const names = (history.state && history.state.order) || [];
  order = names.map((name) => boxes.find((box) => box.value === name)).filter(Boolean);
  for (const box of order) box.checked = true;
}

filter.addEventListener("input", sift);
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search]");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "Escape" && typing) {
    filter.value = "";
    sift();
  }
});
for (const box of boxes) box.addEventListener("change", choose);
if (compare) {
  compare.form.addEventListener("reset", () => setTimeout(choose));
  compare.form.addEventListener("submit", (event) => {
    event.preventDefault(); // the order of the ticks says which is left; a form knows none
    const [a, b] = order.map((box) => encodeURIComponent(box.value));
    if (order.length === 2) location.href = `/compare?a=${a}&b=${b}`;
  });
}
window.addEventListener("pageshow", () => { sift(); remember(); choose(); }); // what a browser filled in again
