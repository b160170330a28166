"""The style sheet of a report's page: plain, light and dark, for wide and narrow screens."""

STYLE = """
:root { --text: #1a1a1a; --back: #ffffff; --soft: #f3f4f6; --line: #d4d7dc; --link: #0b57a4;
  --quiet: #555b64; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --back: #16181c; --soft: #22262c; --line: #3b4048; --link: #8ab8ee;
    --quiet: #a7aeb8; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; overflow-wrap: anywhere; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; }
.scroll { overflow-x: auto; margin: .4rem 0 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; vertical-align: top; }
thead th { background: var(--soft); white-space: normal; vertical-align: bottom; }
th:first-child, .words th, .words td { text-align: left; }
.words td { white-space: normal; overflow-wrap: break-word; }
tbody th { font-weight: 500; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
figcaption { color: var(--quiet); font-size: .9rem; max-width: 48rem; }
code { background: var(--soft); padding: 0 .2rem; border-radius: 3px; font-size: .9em; }
pre code { background: none; padding: 0; font-size: 1em; }
pre { background: var(--soft); padding: .8rem 1rem; overflow-x: auto; border-radius: 4px;
  font-size: .85rem; }
"""
