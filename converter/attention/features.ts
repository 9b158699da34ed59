/**
 * Tells attention between positions from attention between channels: follows an operand back to the layer that made it and
 * looks which of its axes are the layer's output features.
 */
import type { Graph } from '../graph/graph.js';
import type { Knowledge } from '../graph/knowledge.js';
import { axisAttribute, type GraphNode, permutation } from '../graph/node.js';
import type { AxisSpace, Atom, Axes, Axis } from './layout.js';

const MAX_STEPS = 64;

const ELEMENTWISE: ReadonlySet<string> = new Set([
  'Identity',
  'Dropout',
  'Cast',
  'Add',
  'Sub',
  'Mul',
  'Div',
  'LayerNormalization',
  'LpNormalization',
  'Relu',
  'BatchNormalization',
  'RMSNormalization',
  'SimplifiedLayerNormalization',
  'RotaryEmbedding',
  'Clip',
  'Gelu',
]);

/**
 * Whether the `marked` atoms of a value are output features of the layer that made it (a linear layer's last axis, a
 * convolution's channels). False when no layer is found.
 */
export function areFeatures(
  graph: Graph,
  name: string,
  axes: Axes,
  marked: ReadonlySet<Atom>,
  space: AxisSpace,
  knowledge: Knowledge,
): boolean {
  let current = name;
  let labels: Axes = space.resolveAll(axes);
  const marks = new Set(marked);
  const isMarked = (axis: Axis): boolean => space.resolve(axis).some((atom) => marks.has(atom));
  for (let step = 0; step < MAX_STEPS; step++) {
    const node = graph.producer(current);
    if (node === undefined || node.outputs[0] === undefined) return false;
    if (isLayer(node, knowledge)) {
      const features = node.opType === 'Conv' ? labels[1] : labels.at(-1);
      return features !== undefined && isMarked(features);
    }
    const input = mainInput(node, knowledge);
    if (input === null || node.domain !== '') return false;
    const source = node.inputs[input]!;
    const sizes = knowledge.sizes(graph, source);
    if (sizes === null) return false;
    if (ELEMENTWISE.has(node.opType)) {
      if (sizes.length !== labels.length) return false;
    } else if (['Reshape', 'Squeeze', 'Unsqueeze', 'Flatten'].includes(node.opType)) {
      const next = space.reshape(labels, sizes);
      if (next === null) return false;
      // A part of a marked atom is marked.
      for (const atom of [...marks])
        if (atom.parts !== null) space.resolve([atom]).forEach((part) => marks.add(part));
      labels = next;
    } else if (node.opType === 'Transpose') {
      if (labels.length !== sizes.length) return false;
      const perm = permutation(node, sizes.length);
      const next: Axis[] = sizes.map(() => []);
      perm.forEach((from, to) => (next[from] = labels[to]!));
      labels = next;
    } else if (['Split', 'Slice', 'Pad', 'Concat'].includes(node.opType)) {
      // An axis that changes its size keeps its kind.
      if (sizes.length !== labels.length) return false;
      labels = labels.map((axis, at) => {
        const same = space.sizeOf(axis).every((value, i) => value === sizes[at]![i]);
        if (same) return axis;
        const atom = space.atom(sizes[at]!);
        if (isMarked(axis)) marks.add(atom);
        return [atom];
      });
    } else if (node.opType === 'Gather') {
      if (sizes.length !== labels.length + 1) return false;
      const axis = axisAttribute(node, 0, sizes.length);
      labels = [...labels.slice(0, axis), space.axis(sizes[axis]!), ...labels.slice(axis)];
    } else return false;
    current = source;
  }
  return false;
}

function isLayer(node: GraphNode, knowledge: Knowledge): boolean {
  if (node.domain !== '')
    return node.opType === 'FusedMatMul' && knowledge.isConstant(node.graph, node.inputs[1]!);
  if (node.opType === 'Conv') return true;
  return (
    (node.opType === 'MatMul' || node.opType === 'Gemm') && knowledge.isConstant(node.graph, node.inputs[1]!)
  );
}

/** The input that carries the activations: the one of the output's shape that is not constant. */
function mainInput(node: GraphNode, knowledge: Knowledge): number | null {
  const output = knowledge.sizes(node.graph, node.outputs[0]!);
  if (!['Add', 'Sub', 'Mul', 'Div'].includes(node.opType)) return node.inputs[0] === undefined ? null : 0;
  for (const [i, name] of node.inputs.entries()) {
    if (knowledge.isConstant(node.graph, name)) continue;
    const sizes = knowledge.sizes(node.graph, name);
    if (sizes?.length !== output?.length || sizes === null || output === null) continue;
    if (sizes.every((size, axis) => size.every((value, e) => value === output[axis]![e]))) return i;
  }
  return null;
}
