/** One section a site: its meaning, what became of it and why, and its part of the graph before and after. */
import type { Replacement } from '../conversion.js';
import { nodeLabel, type GraphNode } from '../graph/node.js';
import type { Model } from '../onnx/model.js';
import { REASONS } from '../reasons.js';
import type { Site } from '../site.js';
import type { PlacedSite } from './depth-strip.js';
import { escaped, number, percent } from './html.js';
import type { ReportInput } from './report-input.js';
import { MOST_NODES, subgraphPicture, type Subgraph } from './subgraph.js';

/** Pictures of more patterns than this make the page heavy and tell nothing new. */
const MOST_PICTURES = 24;

export function siteSections(input: ReportInput, placed: readonly PlacedSite[]): string {
  const before = nodesByLabel(input.model);
  const after = input.result ? nodesByLabel(input.result.converted) : null;
  const replacements = new Map(
    (input.result?.conversion.replaced ?? []).map((entry) => [entry.site.name, entry]),
  );
  const shown = new Map<string, number>();
  return placed
    .map(({ site, outcome, anchor }, index) => {
      const replacement = replacements.get(site.name);
      const original = originalNodes(site, replacement, before);
      const pattern = original.map(({ opType }) => opType).join(' ');
      const same = shown.get(pattern);
      let pictures = '';
      if (same !== undefined && outcome !== 'refused') {
        pictures = `<p class="lead">Spelled like site ${same}.</p>`;
      } else if (shown.size < MOST_PICTURES && original.length > 0) {
        shown.set(pattern, index + 1);
        pictures = picturePair(site, original, replacement, after);
      }
      return (
        `<section class="card site" id="${anchor}"><header><h3>${index + 1}. <code>${escaped(site.name)}</code></h3>` +
        `<span class="chip ${outcome}">${outcome}</span></header>${refusal(site)}${leaving(input, site)}${facts(site, replacement, input.result?.plan.parameters.get(site.name)?.headBias)}${fitOf(input, site)}${pictures}</section>`
      );
    })
    .join('');
}

function nodesByLabel(model: Model): Map<string, GraphNode> {
  const nodes = new Map<string, GraphNode>();
  const walk = (graph: Model['graph']): void => {
    for (const node of graph.nodes) {
      for (const output of node.outputs) if (output !== '') nodes.set(output, node);
      nodes.set(nodeLabel(node), node);
      node.subgraphs.forEach(walk);
    }
  };
  walk(model.graph);
  return nodes;
}

function originalNodes(
  site: Site,
  replacement: Replacement | undefined,
  nodes: ReadonlyMap<string, GraphNode>,
): GraphNode[] {
  const labels = [...new Set([...site.nodes, ...(replacement?.removed ?? []), ...site.reasonNodes])];
  const found = new Set(labels.flatMap((label) => nodes.get(label) ?? []));
  return [...found].sort((a, b) => a.index - b.index);
}

function refusal(site: Site): string {
  if (site.replaceable || site.reason === null) return '';
  const detail = site.reasonDetail === '' ? '' : ` ${escaped(site.reasonDetail)}`;
  const nodes =
    site.reasonNodes.length === 0
      ? ''
      : `<p>Because of ${site.reasonNodes.map((node) => `<code>${escaped(node)}</code>`).join(', ')}.</p>`;
  return `<p><b>${escaped(site.reason)}</b>: ${escaped(REASONS[site.reason])}.${detail}</p>${nodes}`;
}

/** Why a site that could be replaced stays. */
function leaving({ result }: ReportInput, site: Site): string {
  const own = site.replaceable
    ? result?.conversion.refused.find(({ name }) => name === site.name)
    : undefined;
  if (!own) return '';
  return `<p><b>${escaped(own.reason)}</b>: ${escaped(REASONS[own.reason])}. ${escaped(own.detail)}</p>`;
}

function facts(
  site: Site,
  replacement: Replacement | undefined,
  headBias: readonly number[] | undefined,
): string {
  const known = (value: number | null): string => (value === null ? 'open' : String(value));
  const entries: [string, string][] = [
    ['kind', site.kind],
    [
      'heads',
      site.kvHeads === null || site.kvHeads === site.heads
        ? known(site.heads)
        : `${known(site.heads)} on ${site.kvHeads} kv`,
    ],
    ['head size', known(site.headSize)],
    ['scale', typeof site.scale === 'number' ? number(site.scale) : site.scale],
    ['mask', escaped(site.maskText)],
    ['type', site.dtype],
  ];
  if (site.softcap > 0) entries.push(['softcap', number(site.softcap)]);
  if (site.cacheForm !== 'none') entries.push(['cache', site.cacheForm]);
  if (site.scope !== '') entries.push(['inside', escaped(site.scope)]);
  if (site.emptyRows && replacement?.attributes['normalize'] !== 1) {
    entries.push(['rows without keys', 'give 0 in sigmoid attention']);
  }
  if (headBias) {
    const [low, high] = [Math.min(...headBias), Math.max(...headBias)];
    entries.push(['bias of the heads', low === high ? number(low) : `${number(low)} to ${number(high)}`]);
  }
  for (const { factor, weights, reason } of replacement?.foldings ?? []) {
    entries.push([
      factor,
      escaped(reason === null ? `in ${weights.join(', ')}` : 'an input of the operator'),
    ]);
  }
  for (const [name, value] of Object.entries(replacement?.attributes ?? {})) {
    if (name === 'bias' && headBias) continue;
    if (['bias', 'bias_mode', 'normalize', 'is_causal'].includes(name)) {
      entries.push([name, typeof value === 'number' ? number(value) : escaped(value)]);
    }
  }
  return `<dl>${entries.map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`).join('')}</dl>`;
}

/** What calibration found for the site. */
function fitOf({ result }: ReportInput, site: Site): string {
  const fit = result?.plan.calibration?.sites.find((own) => own.site === site.name);
  if (!fit) return '';
  return fit.kept
    ? `<p>Kept faithful: fitted, its output would be off by ${percent(fit.error)}.</p>`
    : `<p>Fitted in the form <b>${fit.form}</b>: its output is off by ${percent(fit.error)}, ${percent(fit.heldBackError)} on rows held back.</p>`;
}

function picturePair(
  site: Site,
  original: readonly GraphNode[],
  replacement: Replacement | undefined,
  after: ReadonlyMap<string, GraphNode> | null,
): string {
  const accents = new Set(site.reasonNodes);
  const frame = (title: string, subgraph: Omit<Subgraph, 'description'>): string => {
    const { nodes } = subgraph;
    const description = `${title}: ${nodes.map(({ opType }) => opType).join(', ')}`;
    const picture =
      nodes.length > MOST_NODES
        ? `<p>${nodes.length} nodes, too many for a picture.</p>`
        : subgraphPicture({ ...subgraph, description });
    return `<div><h4>${title}, ${nodes.length} node${nodes.length === 1 ? '' : 's'}</h4><div class="frame">${picture}</div></div>`;
  };
  const { query, key, value } = site.values;
  const sources = new Map([
    [query, 'query'],
    [key, 'key'],
    [value, 'value'],
  ]);
  const activations = ['Softmax', 'Sigmoid', 'Attention', 'MultiHeadAttention', 'GroupQueryAttention'];
  const accent = (node: GraphNode): boolean =>
    site.replaceable ? activations.includes(node.opType) : accents.has(nodeLabel(node));
  const parts = [frame(replacement ? 'before' : 'in the graph', { nodes: original, accent, sources })];
  if (replacement && after) {
    const labels = [replacement.node, ...replacement.added];
    const nodes = [...new Set(labels.flatMap((label) => after.get(label) ?? []))].sort(
      (a, b) => a.index - b.index,
    );
    const names = new Map(Object.entries(replacement.inputs).map(([input, name]) => [name, input]));
    const isOperator = ({ opType }: GraphNode): boolean => opType === 'SigmoidAttention';
    if (nodes.length > 0) {
      const known = new Map([...names, ...[...sources].filter(([name]) => !names.has(name))]);
      parts.push(frame('after', { nodes, accent: isOperator, sources: known }));
    }
  }
  return `<details${site.replaceable ? '' : ' open'}><summary>The graph ${replacement ? 'before and after' : 'here'}</summary><div class="pair">${parts.join('')}</div></details>`;
}
