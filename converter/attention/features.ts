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
  'LeakyRelu',
  'PRelu',
  'Elu',
  'Selu',
  'Celu',
  'Sigmoid',
  'HardSigmoid',
  'HardSwish',
  'Mish',
  'Tanh',
  'Erf',
  'Softplus',
  'Softsign',
  'ThresholdedRelu',
  'Sqrt',
  'Abs',
  'Neg',
  'Exp',
  'Pow',
  'InstanceNormalization',
  'GroupNormalization',
]);

/** They change the size of axes, never their kind. */
const RESIZING: ReadonlySet<string> = new Set([
  'Split',
  'Slice',
  'Pad',
  'Concat',
  'MaxPool',
  'AveragePool',
  'LpPool',
  'Resize',
  'Upsample',
]);

/**
 * Whether keys are channels and no positions: they are output features of the layer that made them, and the axis that
 * the scores sum over is none. Where that axis holds features too, of a layer further back, the keys are projected
 * positions (Linformer).
 */
export function areChannels(
  graph: Graph,
  key: { readonly name: string; readonly axes: Axes },
  keys: ReadonlySet<Atom>,
  summed: readonly Atom[],
  space: AxisSpace,
  knowledge: Knowledge,
): boolean {
  const layer = featureLayer(graph, key.name, key.axes, keys, space, knowledge);
  if (layer === null) return false;
  const source = layer.node.inputs[0]!;
  const sizes = knowledge.sizes(graph, source);
  if (sizes?.length !== layer.axes.length) return true;
  const features = layer.node.opType === 'Conv' ? 1 : sizes.length - 1;
  const axes = layer.axes.map((axis, at) => (at === features ? space.axis(sizes[at]!) : axis));
  const marks = new Set(space.resolve(summed));
  return featureLayer(graph, source, axes, marks, space, knowledge) === null;
}

interface Layer {
  readonly node: GraphNode;
  /** Axes of its result. */
  readonly axes: Axes;
}

/**
 * The layer that made a value, where the `marked` atoms are its output features (a linear layer's last axis, a
 * convolution's channels); `null` when they are not, or no layer is found.
 */
function featureLayer(
  graph: Graph,
  name: string,
  axes: Axes,
  marked: ReadonlySet<Atom>,
  space: AxisSpace,
  knowledge: Knowledge,
): Layer | null {
  let current = name;
  let labels: Axes = space.resolveAll(axes);
  const marks = new Set(marked);
  const isMarked = (axis: Axis): boolean => space.resolve(axis).some((atom) => marks.has(atom));
  for (let step = 0; step < MAX_STEPS; step++) {
    const node = graph.producer(current);
    if (node === undefined || node.outputs[0] === undefined) return null;
    if (isLayer(node, knowledge)) {
      const features = node.opType === 'Conv' ? labels[1] : labels.at(-1);
      return features !== undefined && isMarked(features) ? { node, axes: labels } : null;
    }
    const input = mainInput(node, knowledge);
    if (input === null || node.domain !== '') return null;
    const source = node.inputs[input]!;
    const sizes = knowledge.sizes(graph, source);
    if (sizes === null) return null;
    if (ELEMENTWISE.has(node.opType)) {
      if (sizes.length !== labels.length) return null;
    } else if (['Reshape', 'Squeeze', 'Unsqueeze', 'Flatten'].includes(node.opType)) {
      const next = space.reshape(labels, sizes);
      if (next === null) return null;
      // A part of a marked atom is marked.
      for (const atom of [...marks])
        if (atom.parts !== null) space.resolve([atom]).forEach((part) => marks.add(part));
      labels = next;
    } else if (node.opType === 'Transpose') {
      if (labels.length !== sizes.length) return null;
      const perm = permutation(node, sizes.length);
      const next: Axis[] = sizes.map(() => []);
      perm.forEach((from, to) => (next[from] = labels[to]!));
      labels = next;
    } else if (RESIZING.has(node.opType)) {
      // An axis that changes its size keeps its kind.
      if (sizes.length !== labels.length) return null;
      labels = labels.map((axis, at) => {
        const same = space.sizeOf(axis).every((value, i) => value === sizes[at]![i]);
        if (same) return axis;
        const atom = space.atom(sizes[at]!);
        if (isMarked(axis)) marks.add(atom);
        return [atom];
      });
    } else if (node.opType === 'Gather') {
      if (sizes.length !== labels.length + 1) return null;
      const axis = axisAttribute(node, 0, sizes.length);
      labels = [...labels.slice(0, axis), space.axis(sizes[axis]!), ...labels.slice(axis)];
    } else return null;
    current = source;
  }
  return null;
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
