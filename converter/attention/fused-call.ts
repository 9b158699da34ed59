/** What the readers of fused attention operators share: the axes of one call, its operands, masks and past, and the site they make. */
import type { Knowledge, Size } from '../graph/knowledge.js';
import { nodeLabel, type GraphNode } from '../graph/node.js';
import { DataType } from '../onnx/tensor.js';
import type { Anchor } from './anchors.js';
import type { Link } from './chains.js';
import type { Derived, Past } from './derive.js';
import { Refused, type Labelled, type ScoreForm } from './form.js';
import { AxisSpace, isOne, type Atom, type Axis } from './layout.js';

export interface FusedReading {
  readonly anchor: Anchor;
  readonly site: Derived;
  readonly isCausal: boolean;
  readonly left: number;
  readonly right: number;
}

export type FusedReader = (node: GraphNode, knowledge: Knowledge) => FusedReading;

export function fusedAnchor(node: GraphNode): Anchor {
  return {
    kind: 'softmax',
    node,
    graph: node.graph,
    scores: '',
    factor: 1,
    weights: '',
    normalised: null,
    addend: null,
    plusOne: false,
  };
}

export function given(node: GraphNode, input: number): string | null {
  const name = node.inputs[input];
  return name === undefined || name === '' ? null : name;
}

/** Shape of an operand. @throws Refused when it is unknown, or of another rank than those given */
export function sizesOf(
  node: GraphNode,
  name: string,
  knowledge: Knowledge,
  ranks: readonly number[] = [],
): Size[] {
  const sizes = knowledge.sizes(node.graph, name);
  if (sizes === null) throw new Refused('shape-unknown', `the shape of '${name}' cannot be inferred`, [node]);
  if (ranks.length > 0 && !ranks.includes(sizes.length))
    throw unsupported(node, `has '${name}' of rank ${sizes.length}`);
  return sizes;
}

export function unsupported(node: GraphNode, what: string): Refused {
  return new Refused('unsupported-attribute', `'${nodeLabel(node)}' ${what}, which has no counterpart`, [
    node,
  ]);
}

/** Axes of one attention call. Heads are (kv head, query heads per kv head). */
export interface CallAxes {
  readonly space: AxisSpace;
  readonly batch: Axis;
  readonly kvHeads: Axis;
  readonly group: Axis;
  readonly rows: Axis;
  readonly keys: Axis;
  /** Positions of K and V as given, without the past. */
  readonly newKeys: Axis;
  readonly channels: Axis;
  readonly valueChannels: Axis;
}

export interface CallSizes {
  readonly batch: Size;
  readonly heads: number;
  readonly kvHeads: number;
  readonly rows: Size;
  readonly newKeys: Size;
  readonly past: Size | null;
  readonly headSize: Size;
  readonly valueHeadSize: Size;
}

export function callAxes(sizes: CallSizes): CallAxes {
  const environments = sizes.batch.length;
  const space = new AxisSpace(environments);
  const fixed = (size: number): Size => new Array<number>(environments).fill(size);
  const newKeys = space.axis(sizes.newKeys);
  const total =
    sizes.past === null ? newKeys : space.axis(sizes.newKeys.map((size, i) => size + sizes.past![i]!));
  return {
    space,
    batch: space.axis(sizes.batch),
    kvHeads: space.axis(fixed(sizes.kvHeads)),
    group: space.axis(fixed(sizes.heads / sizes.kvHeads)),
    rows: space.axis(sizes.rows),
    keys: total,
    newKeys,
    channels: space.axis(sizes.headSize),
    valueChannels: space.axis(sizes.valueHeadSize),
  };
}

export function emptyForm(scale: number, softcap: number): ScoreForm {
  return {
    axes: [],
    scale,
    scaleTensors: [],
    softcap,
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

/** Labels a mask that broadcasts to [batch, heads, rows, keys]. */
export function labelMask(node: GraphNode, name: string, axes: CallAxes, knowledge: Knowledge): Labelled {
  const sizes = sizesOf(node, name, knowledge);
  const full: Axis[] = [axes.batch, [...axes.kvHeads, ...axes.group], axes.rows, axes.keys];
  if (sizes.length > full.length) throw unsupported(node, `has a mask '${name}' of rank ${sizes.length}`);
  const labelled = sizes.map((size, at) => {
    const axis = full[full.length - sizes.length + at]!;
    if (isOne(size)) return [];
    const expected = axes.space.sizeOf(axis);
    if (size.some((value, i) => value !== expected[i]))
      throw unsupported(node, `has a mask '${name}' that does not span the scores`);
    return axis;
  });
  return { name, axes: labelled };
}

/** Adds a bool or number mask to the form. */
export function addMask(form: ScoreForm, mask: Labelled, node: GraphNode, knowledge: Knowledge): void {
  if (knowledge.type(node.graph, mask.name) === DataType.bool) {
    form.visible.push({ condition: mask, negated: false, fill: -Infinity, node });
  } else form.addends.push({ tensor: mask, factor: 1, node });
}

/** Past and present of a fused operator; `null` and '' where it has none. */
export type CallPast = Omit<Past, 'heads' | 'joins'>;

/** The past that was read, with the presents at outputs 1 and 2; null where the node has neither. */
export function callPast(
  node: GraphNode,
  past: { readonly key: string; readonly value: string } | null,
): CallPast | null {
  const [, presentKey = '', presentValue = ''] = node.outputs;
  if (past === null && presentKey === '' && presentValue === '') return null;
  return { key: past?.key ?? null, value: past?.value ?? null, presentKey, presentValue };
}

export interface SiteParts {
  readonly node: GraphNode;
  readonly axes: CallAxes;
  readonly form: ScoreForm;
  readonly query: readonly Link[];
  readonly key: readonly Link[];
  readonly value: readonly Link[];
  readonly output: readonly Link[];
  readonly past: CallPast | null;
  readonly nonpad?: string | null;
  readonly prepare?: Derived['prepare'];
  readonly complete?: Derived['complete'];
}

export function buildSite(parts: SiteParts): Derived {
  const { node, axes, form } = parts;
  const { space } = axes;
  const atoms = (axis: Axis): readonly Atom[] => space.resolve(axis);
  return {
    kind: 'softmax',
    graph: node.graph,
    space,
    form,
    scoreProduct: node,
    valueProduct: node,
    pathNodes: [node],
    query: parts.query,
    key: parts.key,
    value: parts.value,
    output: parts.output,
    batch: atoms(axes.batch),
    heads: [...atoms(axes.kvHeads), ...atoms(axes.group)],
    rows: atoms(axes.rows),
    keys: atoms(axes.keys),
    newKeys: atoms(axes.newKeys),
    channels: atoms(axes.channels),
    valueChannels: atoms(axes.valueChannels),
    shapes: new Map(),
    past: parts.past === null ? null : { ...parts.past, heads: atoms(axes.kvHeads), joins: [] },
    nonpad: parts.nonpad ?? null,
    prepare: parts.prepare ?? null,
    complete: parts.complete ?? null,
  };
}

export function fixed(size: Size, node: GraphNode): number {
  if (size.some((value) => value !== size[0]))
    throw new Refused('shape-unknown', `heads or head size of '${nodeLabel(node)}' are not fixed`, [node]);
  return size[0]!;
}

export function readPast(
  node: GraphNode,
  keyInput: number,
  valueInput: number,
  knowledge: Knowledge,
): { key: string; value: string; length: Size } | null {
  const key = given(node, keyInput);
  const value = given(node, valueInput);
  if (key === null || value === null) return null;
  const sizes = sizesOf(node, key, knowledge);
  if (sizes.length !== 4) throw unsupported(node, `has a past '${key}' of rank ${sizes.length}`);
  return { key, value, length: sizes[2]! };
}
