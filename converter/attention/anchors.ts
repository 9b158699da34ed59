/**
 * Pass 1, find: the activations that could be attention weights. Softmax and Sigmoid nodes, and the same functions written
 * out in exponentials, sums and hyperbolic tangents. Whether an anchor is attention at all is decided later.
 */
import type { Graph } from '../graph/graph.js';
import type { Knowledge } from '../graph/knowledge.js';
import { axisAttribute, type GraphNode, isOp } from '../graph/node.js';
import { denominator, producerThrough, reducedAxes } from './denominator.js';

export interface Anchor {
  readonly kind: 'softmax' | 'sigmoid';
  /** The node that yields the weights. */
  readonly node: GraphNode;
  readonly graph: Graph;
  /** Input of the activation, which is applied to `factor` times it. */
  readonly scores: string;
  readonly factor: number;
  readonly weights: string;
  /** Axes of the scores that a softmax normalises over; `null` for a sigmoid. */
  readonly normalised: readonly number[] | null;
  /** A tensor that the activation itself adds to the scores. */
  readonly addend: string | null;
  /** The denominator holds more than the sum of the weights. */
  readonly plusOne: boolean;
}

export function findAnchors(graph: Graph, knowledge: Knowledge): Anchor[] {
  const anchors: Anchor[] = [];
  for (const node of graph.nodes) {
    const anchor = readAnchor(node, knowledge);
    if (anchor !== null) anchors.push(anchor);
  }
  return anchors;
}

function readAnchor(node: GraphNode, knowledge: Knowledge): Anchor | null {
  if (node.domain === 'com.microsoft' && node.opType === 'BiasSoftmax')
    return softmaxNode(node, knowledge, node.inputs[1] ?? null);
  if (node.domain !== '') return null;
  switch (node.opType) {
    case 'Softmax':
      return softmaxNode(node, knowledge, null);
    case 'Sigmoid':
      return sigmoid(node, node.inputs[0]!, 1);
    case 'Div':
      return (
        writtenSoftmax(node, node.inputs[0]!, node.inputs[1]!, knowledge) ??
        sigmoidQuotient(node, knowledge) ??
        tanhHalf(node, knowledge)
      );
    case 'Mul':
      return reciprocalProduct(node, knowledge) ?? tanhHalf(node, knowledge);
    case 'Add':
      return tanhHalf(node, knowledge);
    case 'Reciprocal': {
      const factor = exponentialPlusOne(node.graph, node.inputs[0]!, knowledge);
      return factor === null ? null : sigmoid(node, factor.name, factor.factor);
    }
    case 'Exp':
      return expOfLogSoftmax(node, knowledge) ?? expOfLogSigmoid(node, knowledge);
    case 'Pow':
      return inversePower(node, knowledge);
    default:
      return null;
  }
}

function anchorOf(node: GraphNode, kind: Anchor['kind'], scores: string): Anchor {
  return {
    kind,
    node,
    graph: node.graph,
    scores,
    factor: 1,
    weights: node.outputs[0]!,
    normalised: null,
    addend: null,
    plusOne: false,
  };
}

function sigmoid(node: GraphNode, scores: string, factor: number): Anchor {
  return { ...anchorOf(node, 'sigmoid', scores), factor };
}

/** Axes that a Softmax or LogSoftmax normalises over. Before opset 13 it flattened everything from its axis on. */
function softmaxAxes(node: GraphNode, knowledge: Knowledge): number[] | null {
  const rank = knowledge.sizes(node.graph, node.inputs[0]!)?.length;
  if (rank === undefined) return null;
  const flattens = node.domain === '' && (knowledge.model.opsets.get('') ?? 0) < 13;
  if (rank === 0) return null;
  const axis = axisAttribute(node, node.domain === '' && !flattens ? -1 : Math.min(1, rank - 1), rank);
  return flattens ? Array.from({ length: rank - axis }, (_, i) => axis + i) : [axis];
}

function softmaxNode(node: GraphNode, knowledge: Knowledge, addend: string | null): Anchor | null {
  const normalised = softmaxAxes(node, knowledge);
  return { ...anchorOf(node, 'softmax', node.inputs[0]!), normalised, addend };
}

/** exp(log_softmax(x)) */
function expOfLogSoftmax(node: GraphNode, knowledge: Knowledge): Anchor | null {
  const inner = producerThrough(node.graph, node.inputs[0]!);
  if (inner === undefined) return null;
  if (isOp(inner, 'LogSoftmax')) {
    const normalised = softmaxAxes(inner, knowledge);
    return normalised === null ? null : { ...anchorOf(node, 'softmax', inner.inputs[0]!), normalised };
  }
  if (!isOp(inner, 'Sub')) return null;
  const log = producerThrough(node.graph, inner.inputs[1]!);
  if (log === undefined || !isOp(log, 'ReduceLogSumExp') || log.inputs[0] !== inner.inputs[0]) return null;
  const normalised = reducedAxes(log, knowledge);
  return normalised === null ? null : { ...anchorOf(node, 'softmax', inner.inputs[0]!), normalised };
}

/** exp(x) / sum(exp(x)), to any base */
function writtenSoftmax(node: GraphNode, top: string, bottom: string, knowledge: Knowledge): Anchor | null {
  const exponential = producerThrough(node.graph, top);
  const power = exponent(exponential, knowledge);
  if (power === null) return null;
  const found = denominator(node.graph, bottom, knowledge);
  if (found === null || producerThrough(node.graph, found.sum.inputs[0]!) !== exponential) return null;
  const normalised = reducedAxes(found.sum, knowledge);
  if (normalised === null) return null;
  const { name, factor } = power;
  return { ...anchorOf(node, 'softmax', name), factor, normalised, plusOne: found.plusOne };
}

/** exp(x) * (1 / sum(exp(x))) */
function reciprocalProduct(node: GraphNode, knowledge: Knowledge): Anchor | null {
  for (const [top, other] of [
    [0, 1],
    [1, 0],
  ] as const) {
    const reciprocal = producerThrough(node.graph, node.inputs[other]!);
    if (reciprocal === undefined || !isOp(reciprocal, 'Reciprocal')) continue;
    const anchor = writtenSoftmax(node, node.inputs[top]!, reciprocal.inputs[0]!, knowledge);
    if (anchor !== null) return anchor;
  }
  return null;
}

interface Scaled {
  readonly name: string;
  readonly factor: number;
}

/** `value` as a constant times another value. */
function scaledBy(graph: Graph, value: string, knowledge: Knowledge): Scaled {
  let name = value;
  let factor = 1;
  for (let depth = 0; depth < 4; depth++) {
    const node = producerThrough(graph, name);
    if (node === undefined) break;
    if (isOp(node, 'Neg')) {
      factor = -factor;
      name = node.inputs[0]!;
    } else if (isOp(node, 'Mul', 'Div')) {
      const right = knowledge.number(graph, node.inputs[1]!);
      const left = isOp(node, 'Mul') ? knowledge.number(graph, node.inputs[0]!) : null;
      if (right !== null) {
        factor = isOp(node, 'Mul') ? factor * right : factor / right;
        name = node.inputs[0]!;
      } else if (left !== null) {
        factor *= left;
        name = node.inputs[1]!;
      } else break;
    } else break;
  }
  return { name, factor };
}

/** 1 + exp(-x): the x, with the factor that a sigmoid applies to it. */
function exponentialPlusOne(graph: Graph, name: string, knowledge: Knowledge): Scaled | null {
  const sum = producerThrough(graph, name);
  if (sum === undefined || !isOp(sum, 'Add')) return null;
  for (const [one, other] of [
    [0, 1],
    [1, 0],
  ] as const) {
    if (knowledge.number(graph, sum.inputs[one]!) !== 1) continue;
    const power = exponent(producerThrough(graph, sum.inputs[other]!), knowledge);
    if (power === null) continue;
    const negated = producerThrough(graph, power.name);
    if (negated !== undefined && isOp(negated, 'Neg'))
      return { name: negated.inputs[0]!, factor: power.factor };
    const inner = scaledBy(graph, power.name, knowledge);
    return inner.factor === -1
      ? { name: inner.name, factor: power.factor }
      : { name: power.name, factor: -power.factor };
  }
  return null;
}

/** exp(x), or a constant to the power of x: the exponent of e. */
function exponent(node: GraphNode | undefined, knowledge: Knowledge): Scaled | null {
  if (node === undefined) return null;
  if (isOp(node, 'Exp')) return { name: node.inputs[0]!, factor: 1 };
  if (!isOp(node, 'Pow')) return null;
  const base = knowledge.number(node.graph, node.inputs[0]!);
  if (base === null || !(base > 0) || base === 1) return null;
  const factor = Math.log(base);
  return { name: node.inputs[1]!, factor: Math.abs(factor - 1) < 1e-6 ? 1 : factor };
}

/** The x of softplus(x), also where large x are let through as they are. */
function softplusArgument(graph: Graph, name: string, knowledge: Knowledge): string | null {
  const node = producerThrough(graph, name);
  if (node === undefined) return null;
  if (isOp(node, 'Softplus')) return node.inputs[0]!;
  if (!isOp(node, 'Where')) return null;
  const isLarge = producerThrough(graph, node.inputs[0]!);
  const argument = softplusArgument(graph, node.inputs[2]!, knowledge);
  if (argument === null || argument !== node.inputs[1] || isLarge === undefined) return null;
  const bound = isOp(isLarge, 'Greater') ? knowledge.number(graph, isLarge.inputs[1]!) : null;
  return isLarge.inputs[0] === argument && bound !== null && bound >= LARGE_FOR_SOFTPLUS ? argument : null;
}

/** softplus(x) - x is below e^-x. */
const LARGE_FOR_SOFTPLUS = 12;

/** exp(log(sigmoid(x))), exp(-softplus(-x)) and exp(x - softplus(x)) */
function expOfLogSigmoid(node: GraphNode, knowledge: Knowledge): Anchor | null {
  const { graph } = node;
  const inner = producerThrough(graph, node.inputs[0]!);
  if (inner === undefined) return null;
  if (isOp(inner, 'Log')) {
    const original = producerThrough(graph, inner.inputs[0]!);
    return original !== undefined && isOp(original, 'Sigmoid') ? sigmoid(node, original.inputs[0]!, 1) : null;
  }
  if (isOp(inner, 'Sub')) {
    const isSame = softplusArgument(graph, inner.inputs[1]!, knowledge) === inner.inputs[0];
    return isSame ? sigmoid(node, inner.inputs[0]!, 1) : null;
  }
  const outer = scaledBy(graph, node.inputs[0]!, knowledge);
  const softplus = outer.factor === -1 ? softplusArgument(graph, outer.name, knowledge) : null;
  if (softplus === null) return null;
  const argument = scaledBy(graph, softplus, knowledge);
  return argument.factor === -1 ? sigmoid(node, argument.name, 1) : sigmoid(node, softplus, -1);
}

/** (1 + exp(-x))^-1 */
function inversePower(node: GraphNode, knowledge: Knowledge): Anchor | null {
  if (knowledge.number(node.graph, node.inputs[1]!) !== -1) return null;
  const base = exponentialPlusOne(node.graph, node.inputs[0]!, knowledge);
  return base === null ? null : sigmoid(node, base.name, base.factor);
}

/** 1 / (1 + exp(-x)) or exp(x) / (1 + exp(x)) */
function sigmoidQuotient(node: GraphNode, knowledge: Knowledge): Anchor | null {
  const bottom = exponentialPlusOne(node.graph, node.inputs[1]!, knowledge);
  if (bottom === null) return null;
  if (knowledge.number(node.graph, node.inputs[0]!) === 1) return sigmoid(node, bottom.name, bottom.factor);
  const top = producerThrough(node.graph, node.inputs[0]!);
  if (top === undefined || !isOp(top, 'Exp')) return null;
  const sum = producerThrough(node.graph, node.inputs[1]!);
  const uses = sum?.inputs.some((input) => producerThrough(node.graph, input) === top) ?? false;
  return uses ? sigmoid(node, top.inputs[0]!, 1) : null;
}

/** 0.5 (1 + tanh(x / 2)), with the half inside or outside of the sum. */
function tanhHalf(node: GraphNode, knowledge: Knowledge): Anchor | null {
  const { graph } = node;
  const outer = scaledBy(graph, node.outputs[0]!, knowledge);
  const sum = producerThrough(graph, outer.name);
  if (sum === undefined || !isOp(sum, 'Add') || (isOp(node, 'Add') && outer.factor !== 1)) return null;
  for (const [constantAt, other] of [
    [0, 1],
    [1, 0],
  ] as const) {
    const constant = knowledge.number(graph, sum.inputs[constantAt]!);
    if (constant === null || constant * outer.factor !== 0.5) continue;
    const inner = scaledBy(graph, sum.inputs[other]!, knowledge);
    const tanh = producerThrough(graph, inner.name);
    if (tanh === undefined || !isOp(tanh, 'Tanh') || inner.factor * outer.factor !== 0.5) continue;
    const argument = scaledBy(graph, tanh.inputs[0]!, knowledge);
    return sigmoid(node, argument.name, 2 * argument.factor);
  }
  return null;
}
