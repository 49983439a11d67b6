"""The page's style sheet and its one script: scroll to zoom, drag to move."""

from __future__ import annotations

from sae_graphs.render.style import (
    ALARM,
    ALARM_LINE,
    BAR,
    DEEPEST_SHADE,
    FAINT,
    INK,
    LINE,
    LOWERS,
    LOWERS_TINT,
    MONO,
    PANEL,
    RAISES,
    RAISES_TINT,
    SOFT,
)

STYLE = f"""
body {{ font: 15px/1.5 system-ui, Helvetica, Arial, sans-serif; color: {INK};
  margin: 24px auto; max-width: 1600px;
  padding: 0 24px; }}
h1 {{ font-size: 24px; margin: 0 0 12px; }} h2 {{ font-size: 15px; margin: 0 0 8px; }}
a {{ color: {RAISES}; }} p {{ margin: 4px 0; color: {SOFT}; }} code {{ font-family: {MONO}; }}
header {{ display: flex; flex-wrap: wrap; gap: 24px 48px; margin-bottom: 20px; font-size: 14px; }}
header section {{ flex: 1 1 260px; max-width: 620px; }}
.prompt {{ line-height: 2; margin-bottom: 8px; overflow-wrap: anywhere; }}
.token, .read {{ border: 1px solid {LINE}; border-radius: 4px; padding: 2px 5px;
  background: {PANEL}; }}
.read {{ background: {INK}; color: white; border-color: {INK}; }}
.warning {{ background: {ALARM}; border: 1px solid {ALARM_LINE}; border-radius: 6px; color: {INK};
  padding: 8px 12px; font-weight: 600; }}
table {{ border-collapse: collapse; font-size: 14px; margin-bottom: 28px; }}
td, th {{ padding: 4px 14px 4px 0; text-align: left; vertical-align: top; }}
tr + tr td {{ border-top: 1px solid {PANEL}; }} th {{ color: {SOFT}; font-weight: 500; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.faint {{ color: {FAINT}; }}
.next {{ margin: 0; }} .next td {{ padding: 1px 8px 1px 0; border: 0; }}
.next .name {{ text-align: right; }} .bar {{ width: 110px; vertical-align: middle; }}
.bar div {{ background: {BAR}; height: 10px; min-width: 1px; border-radius: 2px; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 4px 12px; margin: 0;
  color: {SOFT}; }}
dd {{ margin: 0; }} .lowers {{ color: {LOWERS}; }} .raises {{ color: {RAISES}; }}
.opacity, .ramp, .chip {{ display: inline-block; height: 10px; width: 36px; }}
.opacity {{ height: 4px; background: linear-gradient(90deg, {LOWERS}4d, {LOWERS});
  vertical-align: middle; }}
.ramp {{ background: linear-gradient(90deg, white, {DEEPEST_SHADE}); border: 1px solid {LINE}; }}
.chip {{ width: 17px; }} .lowered {{ background: {LOWERS_TINT}; }}
.raised {{ background: {RAISES_TINT}; margin-left: 2px; }}
.framed {{ border: 1px solid {INK}; }} .output {{ background: {INK}; }}
figure {{ position: relative; border: 1px solid {LINE}; border-radius: 8px; margin: 0 0 28px; }}
figure svg {{ display: block; width: 100%; height: 78vh; cursor: grab; touch-action: none;
  user-select: none; -webkit-user-select: none; }}
figcaption {{ color: {SOFT}; font-size: 13px; padding: 6px 12px; border-top: 1px solid {LINE}; }}
.buttons {{ position: absolute; top: 10px; right: 10px; display: flex; gap: 4px; }}
.buttons button {{ font: inherit; min-width: 32px; border: 1px solid {LINE}; border-radius: 6px;
  background: white; cursor: pointer; }}
@media print {{ .buttons, figcaption {{ display: none; }} figure svg {{ height: auto; }} }}
"""

PAN_AND_ZOOM = """
(() => {
  const svg = document.querySelector("#picture svg");
  const whole = svg.viewBox.baseVal, home = [whole.x, whole.y, whole.width, whole.height];
  svg.removeAttribute("width");
  svg.removeAttribute("height");
  svg.setAttribute("preserveAspectRatio", "xMidYMin meet");
  const box = svg.getBoundingClientRect();
  const tall = Math.min(home[2] * (box.height / box.width || 1), home[3]);
  let view = [home[0], home[1], home[2], tall], held = null, moved = false;
  const show = () => svg.setAttribute("viewBox", view.join(" "));
  const place = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY);
    return point.matrixTransform(svg.getScreenCTM().inverse());
  };
  const zoom = (factor, x, y) => {
    const size = Math.min(Math.max(view[2] / factor, home[2] / 40), home[2] * 2);
    const ratio = size / view[2];
    view = [x - (x - view[0]) * ratio, y - (y - view[1]) * ratio, size, view[3] * ratio];
    show();
  };
  show();
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x, y } = place(event);
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), x, y);
  }, { passive: false });
  svg.addEventListener("pointerdown", (event) => { held = place(event); moved = false; });
  window.addEventListener("pointermove", (event) => {
    if (!held) return;
    const now = place(event);
    if (Math.hypot(now.x - held.x, now.y - held.y) > 3) moved = true;
    view[0] += held.x - now.x;
    view[1] += held.y - now.y;
    show();
  });
  window.addEventListener("pointerup", () => { held = null; });
  svg.addEventListener("click", (event) => { if (moved) event.preventDefault(); }, true);
  svg.addEventListener("dragstart", (event) => event.preventDefault());
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      const factor = Number(button.dataset.zoom);
      if (factor) zoom(factor, view[0] + view[2] / 2, view[1] + view[3] / 2);
      else { view = home.slice(); show(); }
    });
  }
})();
"""
