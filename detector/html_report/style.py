"""The page's CSS, and the script that sorts tables."""

from detector.html_report.shapes import PALETTE


def _css_colors(which: int) -> str:
    return "; ".join(f"--{role}: {colors[which]}" for role, colors in PALETTE.items())


STYLE = (
    f"""
:root {{ color-scheme: light dark; {_css_colors(0)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_css_colors(1)} }} }}
"""
    + """
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 76rem;
  background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem }
p { margin: .3rem 0 .8rem; max-width: 46rem; color: var(--soft) }
.cards { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: .6rem; margin: 1rem 0 }
@media (max-width: 50rem) { .cards { grid-template-columns: repeat(3, minmax(0, 1fr)) } }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .5rem .7rem }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums }
.card span { color: var(--soft); font-size: .8rem }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 0 2.5rem }
.pictures { display: grid; gap: 1rem; align-items: start }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)) }
.large { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)) }
figure { margin: 0 } figcaption { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere }
img { width: 100%; border-radius: .4rem; display: block }
svg { width: 100%; height: auto; display: block }
svg text { font-size: 13px } .wide { overflow-x: auto } .wide svg { max-width: none }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back) }
th { color: var(--soft); font-weight: 600 }
th button { all: unset; cursor: pointer } th button:focus-visible { outline: 2px solid var(--accent) }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
.tall { max-height: 46rem; overflow-y: auto; scrollbar-width: thin }
.tall thead { position: sticky; top: 0; z-index: 1; background: var(--back) }
.all td { font-weight: 600; border-bottom: 2px solid var(--line) }
.beside { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 2.5rem }
.beside > * { max-width: 100% }
.narrow { width: auto; margin-top: 1rem } .narrow td:nth-child(2), .narrow th:nth-child(2) {
  text-align: left }
@media (max-width: 50rem) { th, td { padding: .25rem .4rem } body { font-size: 14px } }
@media (max-width: 50rem) { .small { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .6rem } }
@media print { .tall { max-height: none } }
.gt { color: rgb(30, 160, 70) } .detection { color: rgb(220, 100, 0) }
"""
)
SORT = """
document.querySelectorAll("table.sortable th").forEach(head => {
  head.firstChild.onclick = () => {
    const table = head.closest("table"), body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") !== "descending";
    const key = row => row.cells[head.cellIndex].dataset.value;
    const number = [...body.rows].every(row => !isNaN(key(row)));
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // empty cells last
      return (down ? -1 : 1) * (number ? x - y : x.localeCompare(y));
    };
    const rows = [...body.rows].sort(order);
    table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  };
});
"""
