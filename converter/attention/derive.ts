/**
 * Pass 2, derive: turns an anchor and its routes into the normal form of attention, with every axis labelled as batch, head,
 * query position, key position or channel. Nothing here depends on how an exporter arranges its reshapes.
 */
import type { Graph } from '../graph/graph.js';
import type { Knowledge } from '../graph/knowledge.js';
import { isOp, nodeLabel, type GraphNode } from '../graph/node.js';
import type { Emitter } from '../rewrite/emitter.js';
import type { Anchor } from './anchors.js';
import { atomsOf, downstream, upstream, type Link } from './chains.js';
import { labelledAxes, labelLetters, summedLetters, type Contraction } from './contraction.js';
import { producerThrough } from './denominator.js';
import { areChannels } from './features.js';
import { Refused, type ScoreForm } from './form.js';
import { AxisSpace, isOne, type Atom, type Axes, type Axis } from './layout.js';
import { partialUpdate } from './partial-update.js';
import { findScorePaths, type ScorePath, type WeightPath } from './paths.js';
import { sameAtoms, scaleForm, SCORE_RULES, WEIGHT_RULES } from './transfer.js';

/** Keys and values of earlier calls that the operator joins itself, and what it yields of them. */
export interface Past {
  /** `null`: the site only yields its keys and values. */
  readonly key: string | null;
  readonly value: string | null;
  /** '' where not asked for. */
  readonly presentKey: string;
  readonly presentValue: string;
  /** The kv heads that the cache holds. */
  readonly heads: readonly Atom[];
  /** Nodes of the model that join past and new rows, which the operator makes needless. */
  readonly joins: readonly GraphNode[];
}

export interface Derived {
  readonly kind: 'softmax' | 'sigmoid';
  readonly graph: Graph;
  readonly space: AxisSpace;
  readonly form: ScoreForm;
  readonly scoreProduct: GraphNode;
  readonly valueProduct: GraphNode;
  /** Nodes from the score product to the value product on the way of the scores. */
  readonly pathNodes: readonly GraphNode[];
  readonly query: readonly Link[];
  readonly key: readonly Link[];
  readonly value: readonly Link[];
  readonly output: readonly Link[];
  /** Atoms in the operator's order. */
  readonly batch: readonly Atom[];
  readonly heads: readonly Atom[];
  readonly rows: readonly Atom[];
  /** Key positions of the scores; those of K and V as given, which lack the past, are `newKeys`. */
  readonly keys: readonly Atom[];
  readonly newKeys: readonly Atom[];
  readonly channels: readonly Atom[];
  readonly valueChannels: readonly Atom[];
  /** Axes of the values on the way from the score product to the value product. */
  readonly shapes: ReadonlyMap<string, Axes>;
  readonly past: Past | null;
  /** Keys and values are a cache whose length is kept from call to call; a mask tells how many are filled. */
  readonly keepsBuffer?: boolean;
  /** Number of keys that take part, per batch entry. */
  readonly nonpad: string | null;
  /** Emits nodes that make the operands, where the model has no such values. */
  readonly prepare: ((emitter: Emitter) => void) | null;
  /** Emits nodes that follow the operator. */
  readonly complete: ((emitter: Emitter) => void) | null;
}

export function derive(
  anchor: Anchor,
  scores: ScorePath,
  weights: WeightPath,
  knowledge: Knowledge,
): Derived {
  const space = new AxisSpace(knowledge.environments.length);
  const { graph } = anchor;
  const product = scores.product;
  const labels = labelLetters(product, knowledge, space, new Map());
  const outputAxes = labels === null ? null : labelledAxes(product, 2, labels, knowledge);
  if (labels === null || outputAxes === null) {
    throw new Refused('shape-unknown', `the shapes around '${nodeLabel(product.node)}' cannot be inferred`, [
      product.node,
    ]);
  }
  for (const name of product.node.inputs.slice(0, 2)) refuseLayer(anchor, product.node, name, knowledge);
  const form = emptyForm(outputAxes, product.alpha);
  const walked: string[] = [];
  const shapes = new Map<string, Axes>();
  const record = (name: string): void => {
    walked.push(name);
    shapes.set(name, form.axes);
  };
  record(product.node.outputs[0]!);
  const run = (rules: typeof SCORE_RULES, node: GraphNode, input: number, keys: ReadonlySet<Atom>): void => {
    const rule = rules[node.opType];
    if (rule === undefined)
      throw new Refused('scores-changed', `'${nodeLabel(node)}' (${node.opType}) has no counterpart`, [node]);
    rule({ knowledge, space, kind: anchor.kind, form, node, input, keys, walked });
    record(node.outputs[0]!);
  };
  if (product.addend !== null) addGemmTerm(form, product, knowledge, space);
  for (let at = 0; at < scores.steps.length; at++) {
    const { node, input } = scores.steps[at]!;
    const update = partialUpdate(scores.steps, at, knowledge);
    if (update === null) run(SCORE_RULES, node, input, new Set());
    else {
      const terms = { ...update.terms, axes: form.axes };
      form.partials.push(terms);
      form.addends.push({ tensor: terms, factor: 1, node: scores.steps[update.last]!.node });
      record(terms.result);
      at = update.last;
    }
  }
  if (anchor.addend !== null) addAnchorTerm(form, anchor, knowledge, space);
  if (anchor.factor !== 1) scaleForm(form, anchor.factor);

  record(anchor.weights);

  const normalised = new Set(anchor.normalised?.flatMap((axis) => space.resolve(form.axes[axis]!)) ?? []);
  for (const { node, input } of weights.steps) run(WEIGHT_RULES, node, input, normalised);

  const value = readValueProduct(weights, form, knowledge, space);
  const keys = value.keys;
  if (anchor.kind === 'softmax') {
    const before = new Set([...normalised].flatMap((atom) => space.resolve([atom])));
    if (before.size !== keys.length || keys.some((atom) => !before.has(atom))) {
      throw new Refused(
        'axis-mismatch',
        `'${nodeLabel(anchor.node)}' normalises over another axis than '${nodeLabel(weights.product.node)}' sums over`,
        [anchor.node, weights.product.node],
      );
    }
  }
  if (form.normalise !== null && !sameAtoms(space.resolve([...form.normalise]), new Set(keys))) {
    throw new Refused(
      'axis-mismatch',
      `the weights of '${nodeLabel(anchor.node)}' are normalised over another axis than '${nodeLabel(weights.product.node)}' sums over`,
      [anchor.node, weights.product.node],
    );
  }
  return label({ anchor, scores, weights, knowledge, space, form, labels, keys, value, graph, shapes });
}

function emptyForm(axes: readonly Axis[], alpha: number): ScoreForm {
  return {
    axes,
    scale: alpha,
    scaleTensors: [],
    softcap: 0,
    bias: 0,
    addends: [],
    visible: [],
    partials: [],
    zeroed: [],
    triangles: [],
    gain: 1,
    gainTensors: [],
    normalise: null,
    guarded: false,
  };
}

function addGemmTerm(form: ScoreForm, product: Contraction, knowledge: Knowledge, space: AxisSpace): void {
  const { name, beta } = product.addend!;
  const sizes = knowledge.sizes(product.node.graph, name);
  if (sizes === null)
    throw new Refused('shape-unknown', `the shape of '${name}' cannot be inferred`, [product.node]);
  const axes = sizes.map((size, axis) =>
    isOne(size) ? [] : (form.axes[form.axes.length - sizes.length + axis] ?? space.axis(size)),
  );
  if (beta !== 0) form.addends.push({ tensor: { name, axes }, factor: beta, node: product.node });
}

function addAnchorTerm(form: ScoreForm, anchor: Anchor, knowledge: Knowledge, space: AxisSpace): void {
  const name = anchor.addend!;
  const sizes = knowledge.sizes(anchor.graph, name);
  if (sizes === null)
    throw new Refused('shape-unknown', `the shape of '${name}' cannot be inferred`, [anchor.node]);
  const axes = sizes.map((size, axis) =>
    isOne(size) ? [] : (form.axes[form.axes.length - sizes.length + axis] ?? space.axis(size)),
  );
  form.addends.push({ tensor: { name, axes }, factor: 1, node: anchor.node });
}

interface ValueProduct {
  readonly keys: readonly Atom[];
  readonly valueAxes: readonly Axis[];
  readonly outputAxes: readonly Axis[];
  readonly valueName: string;
  readonly channels: readonly Atom[];
}

/** Labels the product with the values: its weights' axes are known, which gives those of the values and of the result. */
function readValueProduct(
  weights: WeightPath,
  form: ScoreForm,
  knowledge: Knowledge,
  space: AxisSpace,
): ValueProduct {
  const { product, operand } = weights;
  const { node } = product;
  const letters = product.operands[operand];
  if (product.addend !== null || form.axes.length !== letters.length) {
    throw new Refused('layout', `'${nodeLabel(node)}' is not a plain product of weights and values`, [node]);
  }
  if (product.alpha !== 1) form.gain *= product.alpha;
  const known = new Map(letters.map((letter, axis) => [letter, form.axes[axis]!] as const));
  const labels = labelLetters(product, knowledge, space, known);
  const valueOperand = operand === 0 ? 1 : 0;
  const valueAxes = labels === null ? null : labelledAxes(product, valueOperand, labels, knowledge);
  const outputAxes = labels === null ? null : labelledAxes(product, 2, labels, knowledge);
  if (labels === null || valueAxes === null || outputAxes === null) {
    throw new Refused('shape-unknown', `the shapes around '${nodeLabel(node)}' cannot be inferred`, [node]);
  }
  const keys = summedLetters(product).flatMap((letter) => space.resolve(known.get(letter) ?? []));
  const own = product.operands[valueOperand].filter((letter) => !letters.includes(letter));
  return {
    keys,
    valueAxes,
    outputAxes,
    valueName: node.inputs[valueOperand]!,
    channels: own.flatMap((letter) => space.resolve(labels.get(letter)!)),
  };
}

interface LabelInput {
  readonly anchor: Anchor;
  readonly scores: ScorePath;
  readonly weights: WeightPath;
  readonly knowledge: Knowledge;
  readonly space: AxisSpace;
  readonly form: ScoreForm;
  readonly labels: ReadonlyMap<string, Axis>;
  readonly keys: readonly Atom[];
  readonly value: ValueProduct;
  readonly graph: Graph;
  readonly shapes: ReadonlyMap<string, Axes>;
}

function label(input: LabelInput): Derived {
  const { anchor, scores, weights, knowledge, space, form, labels, value, graph } = input;
  const { product } = scores;
  const sides = [0, 1].map((operand) => ({
    name: product.node.inputs[operand]!,
    letters: product.operands[operand]!,
    axes: labelledAxes(product, operand as 0 | 1, labels, knowledge)!,
  }));
  const keySet = new Set(input.keys);
  const single = input.keys.length === 0 ? singleKeyLetter(input) : null;
  const holdsKeys = sides.map(({ axes, letters }) =>
    single === null ? atomsOf(axes, space).some((atom) => keySet.has(atom)) : letters.includes(single),
  );
  if (holdsKeys[0] === holdsKeys[1]) {
    throw new Refused(
      'layout',
      `'${nodeLabel(product.node)}' does not have the key positions in exactly one operand`,
      [product.node],
    );
  }
  const keySide = sides[holdsKeys[0]! ? 0 : 1]!;
  const querySide = sides[holdsKeys[0]! ? 1 : 0]!;
  const summed = new Set(summedLetters(product));
  const channels = keySide.letters
    .filter((letter) => summed.has(letter))
    .flatMap((letter) => space.resolve(labels.get(letter)!));
  const keyAtoms = new Set(atomsOf(keySide.axes, space));
  const valueAtoms = new Set(atomsOf(value.valueAxes, space));
  if (input.keys.some((atom) => !keyAtoms.has(atom) || !valueAtoms.has(atom))) {
    throw new Refused('layout', 'the key positions of scores and values differ', [
      product.node,
      weights.product.node,
    ]);
  }
  refuseFixedOperands(product, querySide, keySide, value.valueName, knowledge);

  const rows = rowAtoms(product, querySide, keySide, labels, valueAtoms, space);
  if (rows.some((atom) => valueAtoms.has(atom))) {
    throw new Refused('layout', 'the values differ from query to query', [weights.product.node]);
  }
  if (areChannels(graph, keySide, keySet, channels, space, knowledge)) {
    throw new Refused(
      'channel-attention',
      `the keys of '${nodeLabel(product.node)}' are channels, not positions`,
      [product.node],
    );
  }

  const foldScale = { foldScale: true };
  const query = upstream(graph, querySide.name, querySide.axes, knowledge, space, foldScale);
  const key = upstream(graph, keySide.name, keySide.axes, knowledge, space, foldScale);
  const valueChain = upstream(graph, value.valueName, value.valueAxes, knowledge, space, {
    foldScale: false,
  });
  const plain = form.gain === 1 && form.gainTensors.length === 0;
  const resultName = weights.product.node.outputs[0]!;
  const output = downstream(graph, resultName, value.outputAxes, knowledge, space);

  const scoreOrder = space.resolveAll(form.axes).flat();
  const placed = new Set([...space.resolve(rows), ...input.keys.flatMap((atom) => space.resolve([atom]))]);
  const shared = scoreOrder.filter((atom) => !placed.has(atom));
  const outputOrder = atomsOf(value.outputAxes, space);
  const channelSet = new Set([...space.resolve(channels), ...space.resolve(value.channels)]);
  const extra = outputOrder.filter(
    (atom) => !placed.has(atom) && !shared.includes(atom) && !channelSet.has(atom),
  );
  if (extra.length > 0)
    throw new Refused('layout', 'the values have an axis that the weights lack', [weights.product.node]);
  const { batch, heads } = splitBatch(shared, [query, key, valueChain, output], channelSet, form, space);
  return {
    kind: anchor.kind,
    graph,
    space,
    form,
    scoreProduct: product.node,
    valueProduct: weights.product.node,
    pathNodes: [
      product.node,
      ...scores.steps.map(({ node }) => node),
      anchor.node,
      ...weights.steps.map(({ node }) => node),
      weights.product.node,
    ],
    query,
    key,
    value: valueChain,
    output: plain ? output : output.slice(0, 1),
    batch,
    heads,
    rows: space.resolve(rows),
    keys: input.keys.flatMap((atom) => space.resolve([atom])),
    newKeys: input.keys.flatMap((atom) => space.resolve([atom])),
    channels: space.resolve(channels),
    valueChannels: space.resolve(value.channels),
    shapes: input.shapes,
    past: null,
    nonpad: null,
    prepare: null,
    complete: null,
  };
}

/** With one key its axis has no atom: it is told by its place, which only holds where the scores keep their axes. */
function singleKeyLetter({ anchor, scores, weights, form }: LabelInput): string {
  const { product } = scores;
  const moves = [...scores.steps, ...weights.steps].some(({ node }) =>
    ['Transpose', 'Reshape', 'Squeeze', 'Unsqueeze', 'Flatten'].includes(node.opType),
  );
  const letter = product.output[anchor.normalised?.[0] ?? -1];
  if (moves || letter === undefined || form.axes.length !== product.output.length) {
    throw new Refused('layout', 'there is a single key, so its axis cannot be told', [weights.product.node]);
  }
  return letter;
}

/** A product with a plain weight matrix is a layer of the model, not a comparison of queries with keys. */
function refuseLayer(anchor: Anchor, product: GraphNode, operand: string, knowledge: Knowledge): void {
  const rank = fixedRank(product.graph, operand, knowledge);
  if (rank === null || rank > 2) return;
  const other = product.inputs[product.inputs[0] === operand ? 1 : 0]!;
  if (anchor.kind === 'softmax' && holdsComparison(product.graph, other, knowledge)) {
    throw new Refused('scores-changed', `'${nodeLabel(product)}' mixes the scores of several heads`, [
      product,
      anchor.node,
    ]);
  }
  throw new Refused('linear-scores', `'${nodeLabel(product)}' multiplies by the fixed matrix '${operand}'`, [
    product,
    anchor.node,
  ]);
}

/** The value is a product of two computed tensors, neither of them weights of an attention before, in another layout. */
function holdsComparison(graph: Graph, name: string, knowledge: Knowledge): boolean {
  return findScorePaths(graph, name, knowledge).paths.some(({ product: { node } }) =>
    node.inputs.slice(0, 2).every((operand) => {
      if (knowledge.isConstant(graph, operand)) return false;
      const producer = producerThrough(graph, operand);
      return producer === undefined || !isOp(producer, 'Softmax', 'Sigmoid');
    }),
  );
}

function refuseFixedOperands(
  product: Contraction,
  query: { readonly name: string },
  key: { readonly name: string },
  value: string,
  knowledge: Knowledge,
): void {
  const { node } = product;
  const { graph } = node;
  if (fixedRank(graph, key.name, knowledge) !== null && !knowledge.isConstant(graph, query.name)) {
    throw new Refused('constant-keys', `the keys '${key.name}' are fixed weights`, [node]);
  }
  if (fixedRank(graph, value, knowledge) !== null && !knowledge.isConstant(graph, key.name)) {
    throw new Refused('constant-keys', `the values '${value}' are fixed weights`, [node]);
  }
}

/** Rank of the stored weight that the value is but another layout of; `null` when it is computed. */
function fixedRank(graph: Graph, name: string, knowledge: Knowledge): number | null {
  let current = name;
  let smallest = Infinity;
  for (let depth = 0; depth < 16; depth++) {
    const home = graph.definer(current);
    const node = home?.producer(current);
    const sizes = knowledge.sizes(graph, current);
    if (sizes === null) return null;
    smallest = Math.min(
      smallest,
      sizes.filter((size) => !isOne(size)).length === 0 ? sizes.length : sizes.length,
    );
    if (node === undefined) return home?.initializers.has(current) === true ? smallest : null;
    if (isOp(node, 'Constant')) return smallest;
    const isScaled = isOp(node, 'Mul', 'Div') && knowledge.number(graph, node.inputs[1]!) !== null;
    if (
      !isScaled &&
      !isOp(
        node,
        'Identity',
        'Cast',
        'Transpose',
        'Reshape',
        'Unsqueeze',
        'Squeeze',
        'Flatten',
        'DequantizeLinear',
      )
    )
      return null;
    current = node.inputs[0]!;
  }
  return null;
}

/** The query positions: axes that only the query has. Where several are its own (a shared key head), the last one is. */
function rowAtoms(
  product: Contraction,
  query: { readonly letters: readonly string[]; readonly axes: readonly Axis[] },
  key: { readonly letters: readonly string[]; readonly axes: readonly Axis[] },
  labels: ReadonlyMap<string, Axis>,
  valueAtoms: ReadonlySet<Atom>,
  space: AxisSpace,
): readonly Atom[] {
  const own = query.letters.filter(
    (letter) => product.output.includes(letter) && !key.letters.includes(letter),
  );
  if (!isOp(product.node, 'Einsum')) return own.flatMap((letter) => space.resolve(labels.get(letter)!));
  const free = own.filter(
    (letter) => !space.resolve(labels.get(letter)!).some((atom) => valueAtoms.has(atom)),
  );
  const sizes = free.map((letter) => space.sizeOf(labels.get(letter)!));
  const dynamic = free.filter((_, i) => sizes[i]!.some((size) => size !== sizes[i]![0]));
  const chosen = dynamic.at(-1) ?? free.at(-1);
  return chosen === undefined ? [] : space.resolve(labels.get(chosen)!);
}

/**
 * Splits the axes shared by queries, keys and values into batch and heads. Heads are what some layout keeps in one axis with
 * the channels; failing that, the last axis of a stack of more than one, or of one with a fixed size.
 */
function splitBatch(
  shared: readonly Atom[],
  chains: readonly (readonly Link[])[],
  channels: ReadonlySet<Atom>,
  form: ScoreForm,
  space: AxisSpace,
): { batch: readonly Atom[]; heads: readonly Atom[] } {
  const headSet = new Set<Atom>();
  for (const chain of chains) {
    for (const link of chain) {
      for (const axis of space.resolveAll(link.axes)) {
        if (!axis.some((atom) => channels.has(atom))) continue;
        for (const atom of axis) if (shared.includes(atom)) headSet.add(atom);
      }
    }
  }
  if (headSet.size > 0 && headSet.size <= shared.length) {
    return {
      batch: shared.filter((atom) => !headSet.has(atom)),
      heads: shared.filter((atom) => headSet.has(atom)),
    };
  }
  const sharedAxes = (layout: Axes): Axis[] =>
    space.resolveAll(layout).filter((axis) => axis.length > 0 && axis.every((atom) => shared.includes(atom)));
  const isFixed = (axis: Axis): boolean =>
    axis.every((atom) => atom.size.every((size) => size === atom.size[0]));
  const axes = sharedAxes(form.axes);
  const last = axes.at(-1) ?? [];
  // Where scores have batch and heads on one axis, the operands may have had them on two: [B, H, N, D] or [B, N, H, D].
  const apart = chains
    .flat()
    .filter((link) => space.resolveAll(link.axes).filter((axis) => axis.length > 0).length === 4)
    .map((link) => sharedAxes(link.axes))
    .find((found) => found.length === 2 && isFixed(found[1]!));
  const heads = axes.length > 1 || isFixed(last) ? last : (apart?.[1] ?? []);
  return { batch: shared.filter((atom) => !heads.includes(atom)), heads };
}

/** Positions that the past holds, in every environment. */
export function pastLengths(site: Derived): number[] {
  const total = site.space.sizeOf(site.keys);
  return site.space.sizeOf(site.newKeys).map((fresh, i) => total[i]! - fresh);
}

/** Nodes that ask only for the shape of scores or weights; the rewriter answers them from other tensors. */
export function shapeReaders(site: Derived): GraphNode[] {
  return [...site.shapes.keys()].flatMap((name) =>
    site.graph.uses(name).filter((node) => isOp(node, 'Shape') && node.inputs[0] === name),
  );
}
