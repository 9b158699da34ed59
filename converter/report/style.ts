/** The report's style sheet: one column, light and dark, wide pictures scroll inside their frame. */
export const STYLE = `
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6678;--page:#f6f7f9;--card:#fff;--line:#dfe3ea;
--good:#16805a;--bad:#c23b3b;--wait:#9a6a00;--one:#2f66d0;--two:#8a3ffc;--wash:#eef3ff}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa5b5;--page:#12151b;--card:#1a1f28;--line:#2d3542;
--good:#43c592;--bad:#f27d7d;--wait:#e0b04b;--one:#7aa7ff;--two:#bd93ff;--wash:#1d2740}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:960px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:40px 0 10px}
h3{font-size:1rem;margin:0;overflow-wrap:anywhere}
p{margin:8px 0}
.lead{color:var(--soft);margin:0 0 18px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 18px;margin:12px 0}
.verdict{border-left:5px solid var(--soft)}
.verdict.pass{border-left-color:var(--good)}
.verdict.fail{border-left-color:var(--bad)}
.verdict strong{display:block;margin-bottom:2px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:16px 0}
.figure{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 16px}
.figure b{display:block;font-size:1.5rem;line-height:1.2;font-variant-numeric:tabular-nums}
.figure span{color:var(--soft);font-size:.85rem}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
.picture{overflow-x:auto}
.picture svg{max-width:none}
.wide svg{max-width:100%;height:auto;min-width:560px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:7px 10px 7px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:500}
td.num,th.num{text-align:right}td.num{white-space:nowrap}
td.why{min-width:230px}
td.name{overflow-wrap:anywhere;min-width:150px}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
.chip{display:inline-block;border-radius:99px;padding:1px 10px;font-size:.8rem;border:1px solid currentColor;white-space:nowrap}
.chip.replaced{color:var(--good)}.chip.faithful{color:var(--one)}.chip.kept{color:var(--soft)}.chip.refused{color:var(--wait)}
.site header{display:flex;gap:10px;align-items:baseline;flex-wrap:wrap}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(140px,1fr));gap:6px 16px;margin:12px 0 0}
dt{color:var(--soft);font-size:.8rem}dd{margin:0;overflow-wrap:anywhere}
details{margin-top:12px}summary{cursor:pointer;color:var(--one)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:16px;margin-top:10px}
.pair>div{min-width:0}
.pair h4{margin:0 0 6px;font-size:.85rem;color:var(--soft);font-weight:500}
.frame{border:1px solid var(--line);border-radius:8px;overflow:auto;max-height:460px;background:var(--page);text-align:center}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:12px}
figure{margin:0;min-width:0}figure svg{max-width:100%;height:auto}figcaption{color:var(--soft);font-size:.85rem}
.key{display:flex;gap:18px;flex-wrap:wrap;color:var(--soft);font-size:.85rem;margin:0 0 6px}
.key i{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:6px}
i.drift{background:var(--one)}i.structure{background:var(--two)}i.replaced{background:var(--good)}i.faithful{background:var(--one)}i.paper{background:var(--soft);opacity:.5}i.fitted{background:var(--one)}i.refused{background:var(--wait)}i.kept{background:var(--soft)}
footer{margin-top:48px;color:var(--soft);font-size:.85rem}
svg{display:block;font-family:inherit}
.frame svg{display:inline-block}
.axis{stroke:var(--soft);stroke-width:2;fill:none}.stem{stroke:var(--line);stroke-width:2}
circle.replaced{fill:var(--good)}circle.faithful{fill:var(--one)}circle.kept{fill:var(--soft)}circle.refused{fill:var(--wait)}
circle.drift{fill:var(--one);fill-opacity:.85}circle.structure{fill:var(--two);fill-opacity:.85}
.digit{fill:var(--card);font-size:10px;font-weight:600;text-anchor:middle}
.label{fill:var(--soft);font-size:12px}.label.end{text-anchor:end}.label.middle{text-anchor:middle}.sup{font-size:9px}
.grid{stroke:var(--line);stroke-width:1}.level{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 4}.curve{stroke:var(--soft);stroke-width:1.6;fill:none}.label.strong{fill:var(--ink);font-weight:600}.limit{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:5 4}
rect.paper{fill:var(--soft);fill-opacity:.5}rect.fitted{fill:var(--one)}
.edge{stroke:var(--soft);stroke-width:1.4;fill:none;stroke-opacity:.75}
.source rect{fill:none;stroke:var(--soft);stroke-dasharray:3 3}.source text{font-size:11px;fill:var(--soft);text-anchor:middle}
.node rect{fill:var(--card);stroke:var(--line);stroke-width:1.4}
.node.accent rect{fill:var(--wash);stroke:var(--one);stroke-width:2}
.node text{text-anchor:middle;fill:var(--ink)}.node .type{font-size:12px;font-weight:600}.node .name{font-size:9px;fill:var(--soft)}
`.replaceAll('\n', '');
