/**
 * Pass 2, derive: what each operator between the score product and the value product does to the normal form. One small
 * function per operator, in a table; the comment on each says what it preserves.
 */
import type { Knowledge, Size } from '../graph/knowledge.js';
import { type GraphNode, intAttribute, isOp, nodeLabel, permutation } from '../graph/node.js';
import { numeric, strides, type NumericTensor } from '../graph/numeric.js';
import { denominator, producerThrough, reducedAxes } from './denominator.js';
import { Refused, type Labelled, type ScoreForm, type TensorFactor } from './form.js';
import { isOne, type AxisSpace, type Atom, type Axes, type Axis } from './layout.js';

export interface Transfer {
  readonly knowledge: Knowledge;
  readonly space: AxisSpace;
  readonly kind: 'softmax' | 'sigmoid';
  readonly form: ScoreForm;
  readonly node: GraphNode;
  /** The input by which the scores (or weights) enter. */
  readonly input: number;
  /** Values on the way so far. */
  readonly walked: readonly string[];
  /** Atoms that a softmax normalised over; empty before the activation. */
  readonly keys: ReadonlySet<Atom>;
}

type Rule = (transfer: Transfer) => void;

/** A bound at or beyond this changes no score that occurs; models clamp to +-50000 so that float16 does not overflow. */
const BEYOND_SCORES = 1e4;

function sizesOf({ knowledge, node }: Transfer, name: string): Size[] {
  const sizes = knowledge.sizes(node.graph, name);
  if (sizes === null) throw new Refused('shape-unknown', `the shape of '${name}' cannot be inferred`, [node]);
  return sizes;
}

function constant({ knowledge, node }: Transfer, name: string): number | null {
  return knowledge.number(node.graph, name);
}

/**
 * Labels a tensor that is combined element by element with the scores. Where it is larger than the scores, the scores gain
 * an axis.
 */
function aligned(transfer: Transfer, name: string): Labelled {
  const { form, space } = transfer;
  const sizes = sizesOf(transfer, name);
  const shared: Axis[] = [...form.axes];
  while (shared.length < sizes.length) shared.unshift([]);
  const offset = shared.length - sizes.length;
  const axes = sizes.map((size, axis) => {
    if (isOne(size)) return [];
    const at = offset + axis;
    if (shared[at]!.length === 0) shared[at] = space.axis(size);
    return shared[at]!;
  });
  form.axes = shared;
  return { name, axes };
}

/** Gives the scores the rank of the result, so that shorter operands keep their axes. */
function extend(transfer: Transfer): void {
  const { form, node, knowledge } = transfer;
  const rank = knowledge.sizes(node.graph, node.outputs[0]!)?.length ?? form.axes.length;
  const axes: Axis[] = [...form.axes];
  while (axes.length < rank) axes.unshift([]);
  form.axes = axes;
}

function hasAtoms(axes: Axes, space: AxisSpace, atoms: ReadonlySet<Atom>): boolean {
  return space.resolveAll(axes).some((axis) => axis.some((atom) => atoms.has(atom)));
}

/** Keeps the order of elements: only the cut into axes changes. */
const relayout: Rule = (transfer) => {
  const { form, space, node } = transfer;
  const target = sizesOf(transfer, node.outputs[0]!);
  const axes = space.reshape(form.axes, target);
  if (axes === null)
    throw new Refused('layout', `'${nodeLabel(node)}' cuts the scores across their axes`, [node]);
  form.axes = axes;
};

/** Moves axes, elements stay what they are. */
const transpose: Rule = ({ form, node }) => {
  const perm = permutation(node, form.axes.length);
  form.axes = perm.map((axis) => form.axes[axis]!);
};

/** Changes nothing but the precision, which the operator keeps at float32. */
const unchanged: Rule = () => undefined;

/** Identity where the target is no larger; else the scores are repeated along a new axis. */
const expand: Rule = (transfer) => {
  const { form, space, node } = transfer;
  const target = sizesOf(transfer, node.outputs[0]!);
  const axes: Axis[] = [...form.axes];
  while (axes.length < target.length) axes.unshift([]);
  form.axes = axes.map((axis, at) => (axis.length === 0 ? space.axis(target[at]!) : axis));
};

function multiply(transfer: Transfer, factor: number): void {
  const { form, node } = transfer;
  if (!Number.isFinite(factor) || factor === 0) {
    throw new Refused('scores-changed', `'${nodeLabel(node)}' multiplies the scores by ${factor}`, [node]);
  }
  scaleForm(form, factor);
  const shown = form.visible.find(({ fill }) => fill > 0);
  if (shown !== undefined) {
    throw new Refused('mask-not-excluding', `'${nodeLabel(node)}' turns the mask's fill into ${shown.fill}`, [
      shown.node,
      node,
    ]);
  }
}

/** Multiplies all that the scores are made of; c tanh(s / c) is odd, so its cap takes no sign. */
export function scaleForm(form: ScoreForm, factor: number): void {
  form.scale *= factor;
  form.softcap *= Math.abs(factor);
  form.bias *= factor;
  form.addends = form.addends.map((addend) => ({ ...addend, factor: addend.factor * factor }));
  form.visible = form.visible.map((entry) => ({ ...entry, fill: entry.fill * factor }));
}

function multiplyByTensor(transfer: Transfer, name: string, divides: boolean): void {
  const { form, node } = transfer;
  extend(transfer);
  if (form.softcap > 0 || form.addends.length > 0 || form.visible.length > 0 || form.bias !== 0) {
    throw new Refused(
      'scores-changed',
      `'${nodeLabel(node)}' multiplies scores by '${name}' after a mask or bias was added`,
      [node],
    );
  }
  form.scaleTensors.push({ tensor: aligned(transfer, name), divides, node });
}

/** s * c scales everything so far; s * tensor is a temperature. */
const multiplyScores: Rule = (transfer) => {
  const other = transfer.node.inputs[1 - transfer.input]!;
  if (other === transfer.node.inputs[transfer.input]) {
    throw new Refused('scores-changed', `'${nodeLabel(transfer.node)}' squares the scores`, [transfer.node]);
  }
  const factor = constant(transfer, other);
  if (factor !== null) {
    extend(transfer);
    multiply(transfer, factor);
  } else if (!maskedProduct(transfer, other)) multiplyByTensor(transfer, other, false);
};

/** s * m with m of 0 and 1 (an early GPT-2 spelling) hides keys; the large negative term for them follows. */
function maskedProduct(transfer: Transfer, name: string): boolean {
  const { node, form } = transfer;
  if (!isBinary(transfer, name)) return false;
  extend(transfer);
  form.visible.push({ condition: aligned(transfer, name), negated: false, fill: 0, node });
  return true;
}

/** s / c; s / tensor. */
const divideScores: Rule = (transfer) => {
  const name = transfer.node.inputs[1]!;
  const divisor = constant(transfer, name);
  extend(transfer);
  if (divisor !== null) multiply(transfer, 1 / divisor);
  else multiplyByTensor(transfer, name, true);
};

function addTerm(transfer: Transfer, name: string, factor: number): void {
  const { form, node } = transfer;
  extend(transfer);
  const value = constant(transfer, name);
  if (value !== null && Number.isFinite(value)) form.bias += factor * value;
  else form.addends.push({ tensor: aligned(transfer, name), factor, node });
}

/** s + t keeps the product and notes a term. */
const addToScores: Rule = (transfer) => {
  transfer.node.inputs.forEach((name, i) => {
    if (i !== transfer.input) addTerm(transfer, name, 1);
  });
};

/** s - t, or t - s, which negates everything so far. */
const subtract: Rule = (transfer) => {
  const { node, input } = transfer;
  if (input === 0) addTerm(transfer, node.inputs[1]!, -1);
  else {
    multiply(transfer, -1);
    addTerm(transfer, node.inputs[0]!, 1);
  }
};

/** Where(c, s, fill) hides the keys where c is false, Where(c, fill, s) those where it is true. */
const select: Rule = (transfer) => {
  const { node, input, form } = transfer;
  extend(transfer);
  const name = node.inputs[3 - input]!;
  const fill = largest(transfer, name);
  if (fill === null) {
    throw new Refused(
      'scores-changed',
      `'${nodeLabel(node)}' replaces scores by '${name}', which is not constant`,
      [node],
    );
  }
  const replaces = form.addends.map(({ tensor }) => tensor.name);
  const condition = aligned(transfer, node.inputs[0]!);
  form.visible.push({ condition, negated: input === 2, fill, replaces, node });
};

function largest(transfer: Transfer, name: string): number | null {
  const values = transfer.knowledge.values(transfer.node.graph, name);
  if (values === null) return null;
  let out = -Infinity;
  for (const { data } of values) for (const value of data) out = Math.max(out, value);
  return out;
}

/** Bounds far outside of what scores reach change none. */
const clampScores: Rule = (transfer) => {
  const { node, input } = transfer;
  const isMin = isOp(node, 'Min');
  const bounds = node.inputs.map((name, i) => (i === input || name === '' ? null : constant(transfer, name)));
  const harmless = bounds.every((bound, i) => {
    if (i === input || node.inputs[i] === '') return true;
    if (bound === null) return false;
    const isUpper = isMin || (isOp(node, 'Clip') && i === 2);
    return isUpper ? bound >= BEYOND_SCORES : bound <= -BEYOND_SCORES;
  });
  if (!harmless) throw new Refused('scores-changed', `'${nodeLabel(node)}' clamps the scores`, [node]);
};

/** tanh of the bare product is a soft cap of 1, which a later factor raises. */
const softcap: Rule = ({ form, node }) => {
  if (form.addends.length > 0 || form.visible.length > 0 || form.bias !== 0) {
    throw new Refused(
      'softcap-after-mask',
      `'${nodeLabel(node)}' caps scores that a mask or bias was added to`,
      [node],
    );
  }
  if (form.softcap > 0)
    throw new Refused('scores-changed', `'${nodeLabel(node)}' caps the scores a second time`, [node]);
  form.softcap = 1;
};

/** Writing a tensor over all positions of another, in order, yields that tensor. */
const scatter: Rule = (transfer) => {
  const { node, input, knowledge } = transfer;
  const indices = input === 2 ? knowledge.values(node.graph, node.inputs[1]!) : null;
  const isWhole = indices?.every(({ dims, data }, environment) => {
    const depth = dims.at(-1)!;
    const target = knowledge.environments[environment]!.dims(node.graph, node.inputs[0]!);
    if (target === null) return false;
    const step = strides(target.slice(0, depth));
    const count = data.length / depth;
    if (count !== target.slice(0, depth).reduce((product, dim) => product * dim, 1)) return false;
    for (let i = 0; i < count; i++) {
      let at = 0;
      for (let axis = 0; axis < depth; axis++) at += data[i * depth + axis]! * step[axis]!;
      if (at !== i) return false;
    }
    return true;
  });
  if (isWhole !== true) {
    throw new Refused('scores-changed', `'${nodeLabel(node)}' overwrites a part of the scores`, [node]);
  }
  relayout(transfer);
};

/** Only a Slice that keeps everything. */
const fullSlice: Rule = (transfer) => {
  const { node } = transfer;
  const before = sizesOf(transfer, node.inputs[0]!);
  const after = sizesOf(transfer, node.outputs[0]!);
  if (before.some((size, axis) => size.some((value, i) => value !== after[axis]![i]))) {
    throw new Refused('scores-changed', `'${nodeLabel(node)}' keeps only a part of the scores`, [node]);
  }
};

const LAYOUT_RULES: Readonly<Record<string, Rule>> = {
  Reshape: relayout,
  Squeeze: relayout,
  Unsqueeze: relayout,
  Flatten: relayout,
  Transpose: transpose,
  Expand: expand,
  Identity: unchanged,
  Cast: unchanged,
  CastLike: unchanged,
  Dropout: unchanged,
};

export const SCORE_RULES: Readonly<Record<string, Rule>> = {
  ...LAYOUT_RULES,
  Mul: multiplyScores,
  Div: divideScores,
  Add: addToScores,
  Sum: addToScores,
  Sub: subtract,
  Neg: (transfer) => multiply(transfer, -1),
  Where: select,
  Max: clampScores,
  Min: clampScores,
  Clip: clampScores,
  Tanh: softcap,
  ScatterND: scatter,
  Slice: fullSlice,
};

/** Weights lie in [0, 1]: a condition that is false for all of these only ever catches NaN or nothing. */
const SAMPLE_WEIGHTS: NumericTensor = numeric(1, [5], [0, 1e-6, 0.25, 0.5, 1]);

/** Where(c, fill, P) with c true for NaN or Inf only guards; with a mask it hides keys. */
const guardWeights: Rule = (transfer) => {
  const { node, input, form, knowledge, walked } = transfer;
  extend(transfer);
  const condition = node.inputs[0]!;
  const replacement = largest(transfer, node.inputs[3 - input]!);
  const sample = (value: NumericTensor): NumericTensor | null =>
    knowledge.environments[0]!.evaluate(node.graph, condition, new Map(walked.map((name) => [name, value])));
  const sampled = sample(SAMPLE_WEIGHTS);
  const dependsOnWeights =
    sampled !== null &&
    sampled.data.length === SAMPLE_WEIGHTS.data.length &&
    knowledge.values(node.graph, condition) === null;
  if (dependsOnWeights) {
    const keeps = input === 2 ? 0 : 1;
    if (sampled.data.every((value) => value === keeps)) {
      const caught = sample(numeric(1, [1], [NaN]));
      if (caught !== null && caught.data[0] !== keeps && replacement === 0) form.guarded = true;
      return;
    }
    throw new Refused('weights-changed', `'${nodeLabel(node)}' replaces some weights`, [node]);
  }
  if (replacement !== 0)
    throw new Refused(
      'weights-changed',
      `'${nodeLabel(node)}' replaces weights by ${replacement ?? 'a tensor'}`,
      [node],
    );
  const hidden = { condition: aligned(transfer, condition), negated: input === 2, fill: -Infinity, node };
  (normalisedOver(transfer) === null ? form.visible : form.zeroed).push(hidden);
};

function weightFactor(transfer: Transfer, name: string, divides: boolean): void {
  const { form, node, space } = transfer;
  const factor = constant(transfer, name);
  extend(transfer);
  if (factor !== null) {
    form.gain *= divides ? 1 / factor : factor;
    return;
  }
  if (divides && normalise(transfer, name)) return;
  const tensor = aligned(transfer, name);
  const entry: TensorFactor = { tensor, divides, node };
  const over = normalisedOver(transfer);
  if (over === null && !divides && isBinary(transfer, name)) {
    form.visible.push({ condition: tensor, negated: false, fill: -Infinity, node });
    return;
  }
  if (over !== null && hasAtoms(tensor.axes, space, over)) {
    if (!divides && (isBinary(transfer, name) || isInput(transfer, name))) {
      form.zeroed.push({ condition: tensor, negated: false, fill: -Infinity, node });
      return;
    }
    throw new Refused('weights-changed', `'${nodeLabel(node)}' multiplies normalised weights by '${name}'`, [
      node,
    ]);
  }
  form.gainTensors.push(entry);
}

/** The axes over which the weights sum to 1 at this point; `null` where they do not. */
function normalisedOver({ kind, form, keys }: Transfer): ReadonlySet<Atom> | null {
  return kind === 'softmax' ? keys : form.normalise;
}

/**
 * P / sum(P): factors that are the same for all keys cancel. A sigmoid is normalised by it; weights that were normalised
 * before it only notice masks set since, whose keys then take no part at all. False where the divisor is something else.
 */
function normalise(transfer: Transfer, divisor: string): boolean {
  const { form, node, input, knowledge, space } = transfer;
  const found = denominator(node.graph, divisor, knowledge);
  const axes = found && reducedAxes(found.sum, knowledge);
  if (found === null || axes === null) return false;
  const isOwn = [found.sum.inputs[0]!, node.inputs[input]!].map((name) =>
    sourceOf(producerThrough(node.graph, name), name),
  );
  if (isOwn[0] !== isOwn[1] || !standsInPlace(transfer, divisor, axes)) return false;
  if (found.plusOne) {
    throw new Refused('softmax-plus-one', `'${nodeLabel(node)}' divides the weights by more than their sum`, [
      node,
    ]);
  }
  const over = new Set(axes.flatMap((axis) => space.resolve(form.axes[axis]!)));
  const before = normalisedOver(transfer);
  if (before !== null && !sameAtoms(space.resolve([...before]), over)) {
    throw new Refused(
      'axis-mismatch',
      `'${nodeLabel(node)}' divides the weights by their sum over another axis than they are normalised over`,
      [node],
    );
  }
  form.gain = 1;
  form.gainTensors = form.gainTensors.filter(({ tensor }) => hasAtoms(tensor.axes, space, over));
  if (before === null) form.normalise = over;
  for (const entry of form.zeroed) {
    if (!isBinary(transfer, entry.condition.name)) {
      throw new Refused('weights-changed', `'${nodeLabel(entry.node)}' scales single weights`, [entry.node]);
    }
    form.visible.push(entry);
    form.guarded = true;
  }
  form.zeroed = [];
  return true;
}

const sourceOf = (producer: GraphNode | undefined, name: string): string => producer?.outputs[0] ?? name;

export function sameAtoms(some: Iterable<Atom>, others: ReadonlySet<Atom>): boolean {
  const set = new Set(some);
  return set.size === others.size && [...set].every((atom) => others.has(atom));
}

/** A sum is laid beside the weights that it was taken over: 1 along the summed axes, their size along the others. */
function standsInPlace(transfer: Transfer, divisor: string, axes: readonly number[]): boolean {
  const { node, input } = transfer;
  let name = divisor;
  for (let producer = node.graph.producer(name); producer !== undefined && isOp(producer, 'Expand', 'Cast');)
    producer = node.graph.producer((name = producer.inputs[0]!));
  const weights = sizesOf(transfer, node.inputs[input]!);
  const sizes = sizesOf(transfer, name);
  const offset = weights.length - sizes.length;
  return weights.every((size, axis) => {
    const own = sizes[axis - offset];
    if (own === undefined || isOne(own)) return axes.includes(axis) || isOne(size);
    return !axes.includes(axis) && own.every((value, i) => value === size[i]);
  });
}

/** Only 0 and 1 can come out: a cast or a selection of booleans. */
function isBinary({ knowledge, node }: Pick<Transfer, 'knowledge' | 'node'>, name: string): boolean {
  const values = knowledge.values(node.graph, name);
  if (values !== null) return values.every(({ data }) => data.every((value) => value === 0 || value === 1));
  const producer = node.graph.producer(name);
  if (producer === undefined) return false;
  if (isOp(producer, 'Cast')) return knowledge.type(node.graph, producer.inputs[0]!) === 9;
  if (isOp(producer, 'Unsqueeze', 'Reshape', 'Squeeze', 'Expand', 'Identity', 'Transpose')) {
    return isBinary({ knowledge, node }, producer.inputs[0]!);
  }
  return false;
}

/** Another layout of a model input, which masks are given as. */
function isInput({ node: { graph } }: Transfer, name: string): boolean {
  let current = name;
  for (let producer = graph.producer(current); producer !== undefined; producer = graph.producer(current)) {
    if (!isOp(producer, 'Cast', 'Unsqueeze', 'Reshape', 'Squeeze', 'Expand', 'Identity', 'Transpose'))
      return false;
    current = producer.inputs[0]!;
  }
  return graph.parent === null && graph.inputs.some((input) => input.name === current);
}

/** P * c and P / c scale the result; a mask after a sigmoid hides keys. */
const multiplyWeights: Rule = (transfer) => {
  const { node, input } = transfer;
  if (node.inputs[0] === node.inputs[1])
    throw new Refused('weights-changed', `'${nodeLabel(node)}' squares the weights`, [node]);
  const other = node.inputs[1 - input]!;
  const reciprocal = node.graph.producer(other);
  if (
    reciprocal !== undefined &&
    isOp(reciprocal, 'Reciprocal') &&
    normalise(transfer, reciprocal.inputs[0]!)
  )
    return;
  weightFactor(transfer, other, false);
};

const divideWeights: Rule = (transfer) => weightFactor(transfer, transfer.node.inputs[1]!, true);

/** Bounds at or outside of [0, 1] change no weight. */
const clampWeights: Rule = (transfer) => {
  const { node, input } = transfer;
  const isMin = isOp(node, 'Min');
  const harmless = node.inputs.every((name, i) => {
    if (i === input || name === '') return true;
    const bound = constant(transfer, name);
    const isUpper = isMin || (isOp(node, 'Clip') && i === 2);
    return bound !== null && (isUpper ? bound >= 1 : bound <= 0);
  });
  if (!harmless) throw new Refused('weights-changed', `'${nodeLabel(node)}' clamps the weights`, [node]);
};

/** A triangle of a sigmoid's weights hides the other keys. */
const triangle: Rule = (transfer) => {
  const { form, node } = transfer;
  const diagonal = node.inputs[1] ? constant(transfer, node.inputs[1]) : 0;
  const [rows, columns] = form.axes.slice(-2);
  if (normalisedOver(transfer) !== null || diagonal === null || rows === undefined || columns === undefined) {
    throw new Refused('weights-changed', `'${nodeLabel(node)}' cuts a triangle out of the weights`, [node]);
  }
  form.triangles.push({ rows, columns, upper: intAttribute(node, 'upper', 1) === 1, diagonal, node });
};

/** 1 - sigmoid(s) = sigmoid(-s), where nothing else was done to the weights. */
const complement: Rule = (transfer) => {
  const { form, node, input, kind } = transfer;
  const isPlain =
    form.gain === 1 &&
    form.gainTensors.length === 0 &&
    form.visible.length === 0 &&
    form.triangles.length === 0 &&
    form.normalise === null;
  if (kind !== 'sigmoid' || input !== 1 || !isPlain || constant(transfer, node.inputs[0]!) !== 1) {
    mixed(transfer);
    return;
  }
  extend(transfer);
  scaleForm(form, -1);
};

const mixed: Rule = ({ node }) => {
  throw new Refused('mixed-weights', `'${nodeLabel(node)}' adds something to the weights`, [node]);
};

export const WEIGHT_RULES: Readonly<Record<string, Rule>> = {
  ...LAYOUT_RULES,
  Where: guardWeights,
  Mul: multiplyWeights,
  Div: divideWeights,
  Clip: clampWeights,
  Max: clampWeights,
  Min: clampWeights,
  Trilu: triangle,
  Add: mixed,
  Sub: complement,
};
