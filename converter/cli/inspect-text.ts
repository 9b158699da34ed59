/** What `inspect` prints: one row a site, refusals explained below, and what was passed over in one line. */
import type { Inspection, Site } from '../site.js';
import { REASONS } from '../reasons.js';
import { table } from './table.js';

export function inspectionText(file: string, inspection: Inspection): string {
  const { sites, passedOver, nodeCount, producer, opsets } = inspection;
  const opset = opsets[''] ?? opsets['ai.onnx'];
  const origin = [
    producer || 'unknown producer',
    opset === undefined ? '' : `opset ${opset}`,
    `${nodeCount} nodes`,
  ];
  const lines = [`${file}: ${origin.filter((part) => part !== '').join(', ')}`, ''];
  if (sites.length === 0) lines.push('No attention found.');
  else {
    lines.push(
      table(
        ['#', 'site', 'kind', 'heads', 'D', 'scale', 'mask', 'cache', 'decision'],
        sites.map((site, index) => [
          String(index + 1),
          shortened(site.scope === '' ? site.name : `${site.scope}/${site.name}`),
          site.kind,
          headsText(site),
          site.headSize === null ? '?' : String(site.headSize),
          typeof site.scale === 'number' ? String(Number(site.scale.toPrecision(4))) : site.scale,
          site.softcap > 0 ? `${site.maskText}, softcap ${site.softcap}` : site.maskText,
          site.cacheForm === 'none' ? '' : site.cacheForm,
          site.replaceable ? 'replace' : (site.reason ?? 'keep'),
        ]),
        [0, 3, 4, 5],
      ),
    );
  }
  const refused = sites.filter((site) => !site.replaceable);
  if (refused.length > 0) lines.push('', 'Not replaced:', ...refused.map(refusalText));
  const emptyRows = sites.filter((site) => site.replaceable && site.emptyRows);
  if (emptyRows.length > 0) {
    lines.push(
      '',
      `Rows that see no key give 0 in sigmoid attention and something else here, which mode faithful keeps: ${emptyRows.map(({ name }) => name).join(', ')}`,
    );
  }
  if (passedOver.length > 0) lines.push('', `Passed over, no attention: ${passedOverText(inspection)}`);
  return lines.join('\n');
}

function refusalText(site: Site): string {
  const sentence = site.reason === null ? 'kept' : REASONS[site.reason];
  return `  ${site.name}: ${sentence}${site.reasonDetail === '' ? '' : ` (${site.reasonDetail})`}`;
}

function headsText({ heads, kvHeads }: Site): string {
  if (heads === null) return '?';
  return kvHeads === null || kvHeads === heads ? String(heads) : `${heads}/${kvHeads}`;
}

function passedOverText({ passedOver }: Inspection): string {
  const counts = new Map<string, number>();
  for (const { opType, reason } of passedOver) {
    const text = `${opType} (${reason})`;
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  return [...counts].map(([text, count]) => (count > 1 ? `${count} x ${text}` : text)).join(', ');
}

const NAME_WIDTH = 44;

/** The end of a long node name tells more than its beginning. */
export function shortened(name: string): string {
  return name.length <= NAME_WIDTH ? name : `…${name.slice(1 - NAME_WIDTH)}`;
}
