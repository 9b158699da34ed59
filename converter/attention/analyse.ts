/**
 * Passes 1 to 3 over a whole model: every anchor is found, derived and decided upon. The result holds both what a reader is
 * told and what the rewriter needs.
 */
import type { Graph } from '../graph/graph.js';
import { Knowledge } from '../graph/knowledge.js';
import { isOp, nodeLabel, type GraphNode } from '../graph/node.js';
import { inlineFunctions } from '../onnx/inline.js';
import type { Model } from '../onnx/model.js';
import type { ReasonCode } from '../reasons.js';
import type { PassedOver } from '../site.js';
import { findAnchors, type Anchor } from './anchors.js';
import { freeJoins, withPast } from './cache.js';
import { isContraction } from './contraction.js';
import { derive, shapeReaders, type Derived } from './derive.js';
import { Refused } from './form.js';
import { findFused, fusedReader } from './fused.js';
import { fusedAnchor } from './fused-call.js';
import { findDead } from './liveness.js';
import { planMasks, type MaskPlan } from './masks.js';
import { quantisingNode } from './quantised.js';
import {
  findChangingNode,
  findScorePaths,
  findWeightPath,
  type ScorePath,
  type WeightPath,
} from './paths.js';

/** An attention site that is spelled out in standard operators. */
export interface SpelledSite {
  readonly anchor: Anchor;
  readonly site: Derived;
  readonly masks: MaskPlan;
  /** The site was one operator. */
  readonly isFused: boolean;
  /** The same site with past and new keys joined by the model, where the operator could join them itself. */
  readonly joined: SpelledSite | null;
}

/** An attention site that is not replaced. */
export interface RefusedSite {
  readonly anchor: Anchor;
  readonly reason: ReasonCode;
  readonly detail: string;
  readonly nodes: readonly GraphNode[];
  /** What had been derived by then. */
  readonly site: Derived | null;
  readonly isFused: boolean;
}

export interface Analysis {
  /** The model with calls of functions expanded that may hold attention. */
  readonly model: Model;
  readonly knowledge: Knowledge;
  readonly spelled: readonly SpelledSite[];
  readonly refused: readonly RefusedSite[];
  readonly passedOver: readonly PassedOver[];
}

export function analyse(original: Model): Analysis {
  const model = inlineFunctions(original);
  const knowledge = new Knowledge(model);
  const spelled: SpelledSite[] = [];
  const refused: RefusedSite[] = [];
  const passedOver: PassedOver[] = [];
  for (const graph of graphsOf(model.graph)) {
    for (const node of findFused(graph)) {
      const result = readFused(node, knowledge);
      if ('masks' in result) spelled.push(result);
      else refused.push(result);
    }
    for (const anchor of findAnchors(graph, knowledge)) {
      const result = examine(anchor, knowledge);
      if ('masks' in result) spelled.push(result);
      else if (isAttention(result)) refused.push(result);
      else
        passedOver.push({ node: nodeLabel(anchor.node), opType: anchor.node.opType, reason: result.reason });
    }
  }
  return { model, knowledge, spelled, refused, passedOver };
}

export function* graphsOf(graph: Graph): Iterable<Graph> {
  yield graph;
  for (const node of graph.nodes) for (const body of node.subgraphs) yield* graphsOf(body);
}

/** These say that the activation is no attention at all; every other refusal is about an attention site. */
const NO_ATTENTION: ReadonlySet<ReasonCode> = new Set([
  'no-score-product',
  'no-value-product',
  'linear-scores',
  'constant-keys',
  'channel-attention',
]);

function isAttention({ anchor, reason }: RefusedSite): boolean {
  if (NO_ATTENTION.has(reason)) return false;
  // Gates are everywhere; a sigmoid counts as attention only when it could be derived as such.
  return (
    anchor.kind === 'softmax' ||
    ['weights-used-elsewhere', 'scores-used-elsewhere', 'mixed-weights', 'data-type'].includes(reason)
  );
}

function examine(anchor: Anchor, knowledge: Knowledge): SpelledSite | RefusedSite {
  const refuse = (
    reason: ReasonCode,
    detail: string,
    nodes: readonly GraphNode[],
    site: Derived | null = null,
  ): RefusedSite => ({
    anchor,
    reason,
    detail,
    nodes,
    site,
    isFused: false,
  });
  const weights = findWeightPath(anchor.graph, anchor.weights, knowledge);
  const search = findScorePaths(anchor.graph, anchor.scores, knowledge);
  if (anchor.kind === 'softmax' && anchor.normalised === null && weights !== null) {
    return refuse('shape-unknown', `the shape of the scores '${anchor.scores}' cannot be inferred`, [
      anchor.node,
    ]);
  }
  const quantising = quantisingNode(anchor, search, weights, knowledge);
  if (quantising !== null) {
    return refuse('quantized', `'${nodeLabel(quantising)}' makes integers of the scores or weights`, [
      quantising,
      anchor.node,
    ]);
  }
  if (search.paths.length === 0) {
    const sink = search.ends.find((node) => isOp(node, 'Concat'));
    const joined = sink === undefined ? 0 : joinedScores(sink, knowledge);
    if (sink !== undefined && joined > 1) {
      return refuse('scores-changed', `'${nodeLabel(sink)}' joins the scores of several products`, [
        sink,
        anchor.node,
      ]);
    }
    if (sink !== undefined && joined > 0) {
      return refuse('attention-sink', `'${nodeLabel(sink)}' appends a score without a value`, [
        sink,
        anchor.node,
      ]);
    }
    const open = search.ends.find((node) => isContraction(node) && hasUnknownShape(node, knowledge));
    if (open !== undefined) {
      return refuse(
        'shape-unknown',
        `the shapes of the operands of '${nodeLabel(open)}' cannot be inferred`,
        [open, anchor.node],
      );
    }
    return refuse('no-score-product', `the scores '${anchor.scores}' come from no matrix product`, [
      anchor.node,
    ]);
  }
  if (weights === null) {
    const between = anchor.kind === 'softmax' ? findChangingNode(anchor, search.paths, knowledge) : null;
    if (between !== null) {
      return refuse(
        'weights-changed',
        `'${nodeLabel(between)}' (${between.opType}) stands between the weights and their product with the values`,
        [between, anchor.node],
      );
    }
    return refuse('no-value-product', `the weights '${anchor.weights}' reach no matrix product`, [
      anchor.node,
    ]);
  }
  if (anchor.plusOne) {
    return refuse(
      'softmax-plus-one',
      `the denominator of '${nodeLabel(anchor.node)}' holds a term besides the weights`,
      [anchor.node],
    );
  }
  let first: RefusedSite | null = null;
  for (const path of preferred(search.paths, knowledge)) {
    const result = attempt(anchor, path, weights, knowledge);
    if ('masks' in result) return result;
    if (first === null || (NO_ATTENTION.has(first.reason) && !NO_ATTENTION.has(result.reason)))
      first = result;
  }
  return first!;
}

function readFused(node: GraphNode, knowledge: Knowledge): SpelledSite | RefusedSite {
  try {
    const { anchor, site, ...attributes } = fusedReader(node)!(node, knowledge);
    const masks = planMasks(site, knowledge, attributes);
    const plain = { anchor, site, masks, isFused: true, joined: null };
    const { isCausal, left, right } = attributes;
    // Without a past these count positions from the first key.
    return isCausal || left >= 0 || right >= 0 ? plain : (apart(plain, knowledge) ?? plain);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const { code, detail, nodes } = error;
    return { anchor: fusedAnchor(node), reason: code, detail, nodes, site: null, isFused: true };
  }
}

function hasUnknownShape(node: GraphNode, knowledge: Knowledge): boolean {
  return node.inputs.slice(0, 2).some((name) => knowledge.sizes(node.graph, name) === null);
}

/** How many inputs of a Concat along the keys are scores of a product. */
function joinedScores(node: GraphNode, knowledge: Knowledge): number {
  return node.inputs.filter((input) => findScorePaths(node.graph, input, knowledge).paths.length > 0).length;
}

/** Products of two computed tensors first: a product with a constant is more likely a position term. */
function preferred(paths: readonly ScorePath[], knowledge: Knowledge): ScorePath[] {
  const isFixed = ({ product }: ScorePath): number =>
    product.node.inputs.slice(0, 2).filter((name) => knowledge.isConstant(product.node.graph, name)).length;
  const repeatsRows = ({ product }: ScorePath): number => {
    const own = product.operands.map((letters, i) =>
      letters.filter(
        (letter) => product.output.includes(letter) && !product.operands[1 - i]!.includes(letter),
      ),
    );
    return own.every((letters) => letters.length > 0) ? 0 : 1;
  };
  return [...paths].sort(
    (a, b) => isFixed(a) - isFixed(b) || repeatsRows(a) - repeatsRows(b) || a.steps.length - b.steps.length,
  );
}

function attempt(
  anchor: Anchor,
  path: ScorePath,
  weights: WeightPath,
  knowledge: Knowledge,
): SpelledSite | RefusedSite {
  let site: Derived | null = null;
  try {
    site = derive(anchor, path, weights, knowledge);
    const masks = planMasks(site, knowledge);
    refuseOtherUses(anchor, site, masks);
    const plain = { anchor, site, masks, isFused: false, joined: null };
    return apart(plain, knowledge) ?? plain;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { anchor, reason: error.code, detail: error.detail, nodes: error.nodes, site, isFused: false };
  }
}

/** The site with past and new keys apart, where the operator can take the place of the model's joins. */
function apart(plain: SpelledSite, knowledge: Knowledge): SpelledSite | null {
  try {
    const site = withPast(plain.site, knowledge);
    if (site === null) return null;
    const masks = planMasks(site, knowledge);
    const freed = freeJoins(site, new Set(readValues(site, masks)), shapeReaders(site));
    return freed === null ? null : { ...plain, site: freed, masks, joined: plain };
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

/** Nothing is gained, and something may be lost, when scores or weights have to be computed all the same. */
function refuseOtherUses(anchor: Anchor, site: Derived, masks: MaskPlan): void {
  const dead = findDead(
    site.graph,
    [site.valueProduct, ...shapeReaders(site)],
    new Set(readValues(site, masks)),
  );
  if (!dead.has(anchor.node)) {
    throw new Refused(
      'weights-used-elsewhere',
      `the weights '${anchor.weights}' are needed besides the product with the values`,
      [anchor.node],
    );
  }
  if (!dead.has(site.scoreProduct)) {
    throw new Refused(
      'scores-used-elsewhere',
      `the scores of '${nodeLabel(site.scoreProduct)}' are needed besides their activation`,
      [site.scoreProduct],
    );
  }
}

/** Values of the model that the operator and the nodes around it will read. */
function* readValues(site: Derived, masks: MaskPlan): Iterable<string> {
  for (const chain of [site.query, site.key, site.value]) yield chain[0]!.name;
  if (site.past?.key && site.past.value) yield* [site.past.key, site.past.value];
  for (const { tensor } of [...masks.addends, ...site.form.scaleTensors, ...site.form.gainTensors])
    yield tensor.name;
  for (const { condition } of masks.visible) yield condition.name;
}
