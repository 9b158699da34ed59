/**
 * The neighbourhood of a site: values upstream of an operand that hold the same numbers in another layout, and values
 * downstream of the result likewise. The rewriter picks from these where to attach, so that reshapes and transposes around
 * the site fall away.
 */
import type { Graph } from '../graph/graph.js';
import type { Knowledge, Size } from '../graph/knowledge.js';
import { axisAttribute, type GraphNode, isOp, nodeLabel, permutation } from '../graph/node.js';
import { isFloatType } from '../graph/numeric.js';
import { DataType } from '../onnx/tensor.js';
import { isOne, type AxisSpace, type Atom, type Axes, type Axis } from './layout.js';

/** One value on a chain. */
export interface Link {
  readonly name: string;
  readonly graph: Graph;
  readonly axes: Axes;
  readonly type: number;
  /** The operand equals `factor` times this value. */
  readonly factor: number;
  /** Nodes between this value and the site. */
  readonly passed: readonly GraphNode[];
}

const MAX_LINKS = 24;

export interface ChainOptions {
  readonly foldScale: boolean;
}

/** Values upstream of `name` that hold its numbers in another layout, nearest first; the first link is `name` itself. */
export function upstream(
  graph: Graph,
  name: string,
  axes: Axes,
  knowledge: Knowledge,
  space: AxisSpace,
  options: ChainOptions,
): Link[] {
  const links: Link[] = [{ name, graph, axes, type: knowledge.type(graph, name), factor: 1, passed: [] }];
  while (links.length < MAX_LINKS) {
    const last = links.at(-1)!;
    const node = last.graph.producer(last.name);
    if (node === undefined || node.outputs[0] !== last.name) break;
    const next = stepUp(node, last, knowledge, space, options);
    if (next === null) break;
    links.push({
      graph: last.graph,
      ...next,
      type: knowledge.type(last.graph, next.name),
      passed: [...last.passed, node],
    });
  }
  return links;
}

interface StepUp {
  readonly name: string;
  readonly axes: Axes;
  readonly factor: number;
}

function stepUp(
  node: GraphNode,
  link: Link,
  knowledge: Knowledge,
  space: AxisSpace,
  options: ChainOptions,
): StepUp | null {
  const source = node.inputs[0];
  if (node.domain !== '' || source === undefined || source === '') return null;
  const sizes = knowledge.sizes(node.graph, source);
  if (sizes === null) return null;
  const keep = (axes: Axes | null): StepUp | null =>
    axes === null ? null : { name: source, axes, factor: link.factor };
  switch (node.opType) {
    case 'Identity':
    case 'Dropout':
      return keep(link.axes);
    case 'Reshape':
    case 'Squeeze':
    case 'Unsqueeze':
    case 'Flatten':
      return keep(space.reshape(link.axes, sizes));
    case 'Transpose': {
      if (sizes.length !== link.axes.length) return null;
      const perm = permutation(node, sizes.length);
      const axes: Axis[] = sizes.map(() => []);
      perm.forEach((from, to) => (axes[from] = link.axes[to]!));
      return keep(axes);
    }
    case 'Expand': {
      const axes = link.axes.slice(link.axes.length - sizes.length);
      return keep(sizes.map((size, axis) => (isOne(size) ? [] : axes[axis]!)));
    }
    case 'Tile':
      return keep(untile(link.axes, knowledge.sizes(node.graph, link.name), sizes, space));
    case 'Gather':
      return keep(unrepeat(node, link.axes, sizes, knowledge, space));
    case 'Concat': {
      const only = onlyPart(node, knowledge);
      if (only !== null) return { name: only, axes: link.axes, factor: link.factor };
      return keep(unconcat(node, link.axes, sizes, space));
    }
    case 'Cast': {
      const from = knowledge.type(node.graph, source);
      const isExact = from === link.type || (isHalf(from) && link.type === DataType.float);
      return isExact && isFloatType(from) ? keep(link.axes) : null;
    }
    case 'Mul':
    case 'Div':
      return options.foldScale ? unscale(node, link, knowledge) : null;
    default:
      return null;
  }
}

export function isHalf(type: number): boolean {
  return type === DataType.float16 || type === DataType.bfloat16;
}

function unscale(node: GraphNode, link: Link, knowledge: Knowledge): StepUp | null {
  for (const [at, other] of node.opType === 'Mul'
    ? ([
        [1, 0],
        [0, 1],
      ] as const)
    : ([[1, 0]] as const)) {
    const factor = knowledge.number(node.graph, node.inputs[at]!);
    const source = node.inputs[other]!;
    if (factor === null || factor === 0 || !Number.isFinite(factor)) continue;
    if (knowledge.sizes(node.graph, source)?.length !== link.axes.length) continue;
    return {
      name: source,
      axes: link.axes,
      factor: link.factor * (node.opType === 'Mul' ? factor : 1 / factor),
    };
  }
  return null;
}

/** Tile repeats whole blocks: the axis is (repeat, block), and the repeat drops out. */
function untile(
  axes: Axes,
  after: readonly Size[] | null,
  before: readonly Size[],
  space: AxisSpace,
): Axes | null {
  if (after === null || after.length !== before.length) return null;
  const out: Axis[] = [];
  for (let axis = 0; axis < before.length; axis++) {
    const repeat = after[axis]!.map((size, i) => size / before[axis]![i]!);
    if (isOne(repeat)) out.push(axes[axis]!);
    else if (isOne(before[axis]!)) out.push([]);
    else {
      const cut = space.splitTail(axes[axis]!, repeat, before[axis]!);
      if (cut === null) return null;
      out.push(cut.inner);
    }
  }
  return out;
}

/** The one operand of a Concat that is not an empty constant: exporters prepend an empty cache. */
export function onlyPart(node: GraphNode, knowledge: Knowledge): string | null {
  const filled = node.inputs.filter((name) => {
    const sizes = knowledge.isConstant(node.graph, name) ? knowledge.sizes(node.graph, name) : null;
    return sizes === null || !sizes.some((size) => size.every((value) => value === 0));
  });
  return filled.length === 1 ? filled[0]! : null;
}

/** Concat of one value with itself repeats it like Tile. */
function unconcat(node: GraphNode, axes: Axes, before: readonly Size[], space: AxisSpace): Axes | null {
  if (node.inputs.length < 2 || node.inputs.some((name) => name !== node.inputs[0])) return null;
  const at = axisAttribute(node, 0, before.length);
  const after = before.map((size, axis) =>
    axis === at ? size.map((value) => value * node.inputs.length) : size,
  );
  return untile(axes, after, before, space);
}

/** Gather with indices 0,0,1,1,... repeats each position, with 0,1,0,1,... whole blocks. */
function unrepeat(
  node: GraphNode,
  axes: Axes,
  before: readonly Size[],
  knowledge: Knowledge,
  space: AxisSpace,
): Axes | null {
  const indices = knowledge.environments[0]!.value(node.graph, node.inputs[1]!);
  const axis = axisAttribute(node, 0, before.length);
  const size = before[axis]?.[0];
  if (indices === null || indices.dims.length !== 1 || size === undefined || size === 0) return null;
  const repeat = indices.data.length / size;
  if (!Number.isInteger(repeat) || repeat < 1) return null;
  const times = before[axis]!.map(() => repeat);
  const isInterleaved = indices.data.every((value, i) => value === Math.floor(i / repeat));
  const isTiled = indices.data.every((value, i) => value === i % size);
  if (!isInterleaved && !isTiled) return null;
  if (repeat === 1) return axes;
  const cut = isInterleaved
    ? space.splitTail(axes[axis]!, before[axis]!, times)
    : space.splitTail(axes[axis]!, times, before[axis]!);
  if (cut === null) return null;
  return axes.map((entry, at) => (at === axis ? (isInterleaved ? cut.outer : cut.inner) : entry));
}

/**
 * Values downstream of `name` that hold its numbers in another layout, as long as nothing else reads the values between;
 * the first link is `name` itself.
 */
export function downstream(
  graph: Graph,
  name: string,
  axes: Axes,
  knowledge: Knowledge,
  space: AxisSpace,
): Link[] {
  const links: Link[] = [{ name, graph, axes, type: knowledge.type(graph, name), factor: 1, passed: [] }];
  while (links.length < MAX_LINKS) {
    const last = links.at(-1)!;
    const uses = graph.uses(last.name);
    if (graph.isOutput(last.name)) break;
    const carriers = uses.filter((use) => !isOp(use, 'Shape'));
    const [node] = carriers;
    if (
      node === undefined ||
      carriers.length !== 1 ||
      uses.length !== 1 ||
      node.inputs[0] !== last.name ||
      node.subgraphs.length > 0
    )
      break;
    const next = stepDown(node, last, knowledge, space);
    if (next === null) break;
    const output = node.outputs[0]!;
    links.push({
      name: output,
      graph,
      axes: next,
      type: knowledge.type(graph, output),
      factor: 1,
      passed: [...last.passed, node],
    });
  }
  return links;
}

function stepDown(node: GraphNode, link: Link, knowledge: Knowledge, space: AxisSpace): Axes | null {
  if (node.domain !== '') return null;
  switch (node.opType) {
    case 'Identity':
    case 'Dropout':
      return node.outputs.length > 1 && node.outputs[1] !== '' ? null : link.axes;
    case 'Reshape':
    case 'Squeeze':
    case 'Unsqueeze':
    case 'Flatten': {
      const sizes = knowledge.sizes(node.graph, node.outputs[0]!);
      return sizes === null ? null : space.reshape(link.axes, sizes);
    }
    case 'Transpose': {
      const perm = permutation(node, link.axes.length);
      return perm.map((axis) => link.axes[axis]!);
    }
    case 'Cast': {
      const to = knowledge.type(node.graph, node.outputs[0]!);
      return to === link.type || (isHalf(to) && link.type === DataType.float) ? link.axes : null;
    }
    default:
      return null;
  }
}

export function atomsOf(axes: Axes, space: AxisSpace): Atom[] {
  return space.resolveAll(axes).flat();
}

/** How a reader names the value that a chain ends in. */
export function linkLabel(link: Link): string {
  const producer = link.graph.producer(link.name);
  return producer === undefined ? link.name : nodeLabel(producer);
}
