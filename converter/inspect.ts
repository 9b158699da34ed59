/** What the converter finds in a model, in the words of {@link Inspection}. */
import { analyse, type Analysis, type RefusedSite, type SpelledSite } from './attention/analyse.js';
import type { Anchor } from './attention/anchors.js';
import type { Derived } from './attention/derive.js';
import { Refused } from './attention/form.js';
import type { Atom } from './attention/layout.js';
import { cacheForm } from './attention/cache.js';
import { FRESH_BASE } from './graph/shape-rule.js';
import { nodeLabel } from './graph/node.js';
import type { Model } from './onnx/model.js';
import { dataTypeName } from './onnx/tensor.js';
import { attach } from './rewrite/attach.js';
import { checkRewritable } from './rewrite/replace.js';
import type { Inspection, MaskKind, Quantity, Site } from './site.js';

/** Finds the attention sites of a model and says what each means and whether it can be replaced. */
export function inspect(model: Model): Inspection {
  return describe(analyse(model)).inspection;
}

export interface Described {
  readonly inspection: Inspection;
  /** By position in `inspection.sites`. */
  readonly sources: readonly (SpelledSite | RefusedSite)[];
}

export function describe(analysis: Analysis): Described {
  const { model } = analysis;
  const entries: { site: Site; source: SpelledSite | RefusedSite; order: number }[] = [];
  const names = new Set<string>();
  for (const source of [...analysis.spelled.map((entry) => checked(entry, analysis)), ...analysis.refused]) {
    const site =
      'masks' in source ? describeSpelled(source, analysis, names) : describeRefused(source, analysis, names);
    entries.push({ site, source, order: source.anchor.node.index });
  }
  entries.sort((a, b) => a.site.depth - b.site.depth || a.order - b.order);
  return {
    inspection: {
      sites: entries.map(({ site }) => site),
      passedOver: analysis.passedOver,
      nodeCount: model.graph.nodes.length,
      opsets: Object.fromEntries(
        [...model.opsets].map(([domain, version]) => [domain === '' ? 'ai.onnx' : domain, version]),
      ),
      producer: model.producer,
    },
    sources: entries.map(({ source }) => source),
  };
}

/** Turns a site whose pieces cannot be brought into the operator's form into a refusal. */
function checked(spelled: SpelledSite, analysis: Analysis): SpelledSite | RefusedSite {
  try {
    checkRewritable(spelled, analysis.knowledge);
    return spelled;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (spelled.joined !== null) return checked(spelled.joined, analysis);
    return {
      anchor: spelled.anchor,
      reason: error.code,
      detail: error.detail,
      nodes: error.nodes,
      site: spelled.site,
      isFused: spelled.isFused,
    };
  }
}

function uniqueName(anchor: Anchor, names: Set<string>): string {
  const wish = [anchor.graph.scope, nodeLabel(anchor.node)].filter((part) => part !== '').join('/');
  let name = wish;
  for (let count = 2; names.has(name); count++) name = `${wish}#${count}`;
  names.add(name);
  return name;
}

function depthOf(anchor: Anchor): number {
  let { graph } = anchor;
  let { index } = anchor.node;
  while (graph.owner !== null) {
    index = graph.owner.index;
    graph = graph.owner.graph;
  }
  return graph.nodes.length < 2 ? 0 : index / (graph.nodes.length - 1);
}

function fixedSize(atoms: readonly Atom[]): number | null {
  if (atoms.some((atom) => atom.size.some((size) => size !== atom.size[0] || size >= FRESH_BASE)))
    return null;
  return atoms.reduce((product, atom) => product * atom.size[0]!, 1);
}

function describeSpelled(spelled: SpelledSite, analysis: Analysis, names: Set<string>): Site {
  const { anchor, site, masks } = spelled;
  const attachment = attach(site, 3) ?? attach(site, 4);
  const kinds = [...masks.kinds];
  const bias: Quantity =
    masks.headBias !== null ? 'per-head' : masks.biasMode !== 'none' ? 'tensor' : masks.bias;
  return {
    ...common(spelled, site, names),
    replaceable: true,
    reason: null,
    reasonDetail: '',
    reasonNodes: [],
    kvHeads: attachment === null ? null : fixedSize(attachment.kvHeads),
    scale: scaleOf(site, analysis),
    softcap: site.form.softcap,
    mask: kinds,
    maskText: kinds.length === 0 ? 'none' : kinds.join('+'),
    bias,
    cache: cacheForm(site, analysis.knowledge).includes('past'),
    cacheForm: cacheForm(site, analysis.knowledge),
    rank: attachment?.rank ?? null,
    ...(attachment === null ? {} : { dtype: dataTypeName(attachment.type) }),
    emptyRows: masks.mayHideRows && !site.form.guarded && anchor.kind === 'softmax',
  };
}

function scaleOf(site: Derived, analysis: Analysis): Quantity {
  if (site.form.scaleTensors.length > 0) {
    const isConstant = site.form.scaleTensors.every(
      ({ tensor }) => analysis.knowledge.values(site.graph, tensor.name) !== null,
    );
    return isConstant ? 'per-head' : 'tensor';
  }
  return site.form.scale * site.query.at(-1)!.factor * site.key.at(-1)!.factor;
}

function describeRefused(refused: RefusedSite, _analysis: Analysis, names: Set<string>): Site {
  return {
    ...common(refused, refused.site, names),
    replaceable: false,
    reason: refused.reason,
    reasonDetail: refused.detail,
    reasonNodes: refused.nodes.map(nodeLabel),
    kvHeads: null,
    scale: refused.site?.form.scale ?? 'tensor',
    softcap: refused.site?.form.softcap ?? 0,
    mask: [] satisfies MaskKind[],
    maskText: 'none',
    bias: refused.site?.form.bias ?? 0,
    cache: false,
    cacheForm: 'none',
    rank: null,
    emptyRows: false,
  };
}

type Common = Pick<
  Site,
  | 'name'
  | 'kind'
  | 'nodes'
  | 'heads'
  | 'headSize'
  | 'valueHeadSize'
  | 'queryLength'
  | 'keyLength'
  | 'dtype'
  | 'depth'
  | 'scope'
  | 'values'
>;

function common(
  { anchor, isFused }: SpelledSite | RefusedSite,
  site: Derived | null,
  names: Set<string>,
): Common {
  return {
    name: uniqueName(anchor, names),
    kind: isFused ? 'fused' : anchor.kind,
    nodes: site === null ? [nodeLabel(anchor.node)] : site.pathNodes.map(nodeLabel),
    heads: site === null ? null : fixedSize(site.heads),
    headSize: site === null ? null : fixedSize(site.channels),
    valueHeadSize: site === null ? null : fixedSize(site.valueChannels),
    queryLength: site === null ? null : fixedSize(site.rows),
    keyLength: site === null ? null : fixedSize(site.keys),
    dtype: site === null ? '' : dataTypeName(site.value[0]!.type),
    depth: depthOf(anchor),
    scope: anchor.graph.scope,
    values: {
      query: site?.query[0]?.name ?? '',
      key: site?.key[0]?.name ?? '',
      value: site?.value[0]?.name ?? '',
      scores: isFused ? null : anchor.scores,
      weights: isFused ? null : anchor.weights,
      output: site?.output[0]?.name ?? '',
    },
  };
}
