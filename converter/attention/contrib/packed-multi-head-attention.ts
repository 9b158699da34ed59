/** The reader of com.microsoft PackedMultiHeadAttention, which turns the bounds of its sequences into a mask. */
import type { Knowledge } from '../../graph/knowledge.js';
import { intAttribute, type GraphNode } from '../../graph/node.js';
import { DataType } from '../../onnx/tensor.js';
import { downstream, upstream, type Link } from '../chains.js';
import {
  buildSite,
  callAxes,
  emptyForm,
  fixed,
  fusedAnchor,
  given,
  sizesOf,
  unsupported,
  type FusedReading,
} from '../fused-call.js';
import type { Axis } from '../layout.js';
import { divided, scaleOf, uniform } from './operands.js';
import { Prelude } from './prelude.js';

/** com.microsoft PackedMultiHeadAttention: the tokens of all sequences in one list, each sees its own sequence. */
export function readPacked(node: GraphNode, knowledge: Knowledge): FusedReading {
  const { graph } = node;
  const heads = intAttribute(node, 'num_heads', 0);
  const q = sizesOf(node, node.inputs[0]!, knowledge);
  if (given(node, 1) === null || given(node, 2) === null || q.length !== 2)
    throw unsupported(node, 'packs queries, keys and values into one tensor');
  if (given(node, 3) !== null) throw unsupported(node, 'adds a bias to its operands');
  if (given(node, 6) !== null) throw unsupported(node, 'adds a bias per sequence to its scores');
  const v = sizesOf(node, node.inputs[2]!, knowledge, [2]);
  const headSize = divided(q[1]!, heads, node);
  const axes = callAxes({
    batch: uniform(1, q[0]!),
    heads,
    kvHeads: heads,
    rows: q[0]!,
    newKeys: q[0]!,
    past: null,
    headSize,
    valueHeadSize: divided(v[1]!, heads, node),
  });
  const form = emptyForm(scaleOf(node, fixed(headSize, node)), 0);
  const prelude = new Prelude(node);
  const flag = prelude.name('same_sequence');
  const [query, bounds] = [node.inputs[0]!, node.inputs[5]!];
  prelude.add((emitter) => {
    // A token's sequence is the number of bounds up to its position.
    const count = emitter.apply(
      'Gather',
      [emitter.apply('Shape', [query]), emitter.scalar(DataType.int64, 0)],
      { axis: 0 },
    );
    const positions = emitter.apply('Range', [
      emitter.scalar(DataType.int64, 0),
      count,
      emitter.scalar(DataType.int64, 1),
    ]);
    const column = emitter.unsqueeze(emitter.apply('Cast', [positions], { to: DataType.float }), [1]);
    const isBefore = emitter.apply('Less', [column, emitter.apply('Cast', [bounds], { to: DataType.float })]);
    const left = emitter.reduce('ReduceSum', emitter.apply('Cast', [isBefore], { to: DataType.float }), 1);
    const right = emitter.apply('Transpose', [left], { perm: [1, 0] });
    const differs = emitter.apply('Cast', [emitter.apply('Sub', [left, right])], { to: DataType.bool });
    emitter.apply('Not', [differs], {}, flag);
  });
  form.visible.push({
    condition: { name: flag, axes: [axes.rows, axes.keys] },
    negated: false,
    fill: -Infinity,
    node,
  });
  const all = [...axes.kvHeads, ...axes.group];
  const flat = (rows: Axis, channels: Axis): Axis[] => [rows, [...all, ...channels]];
  const up = (input: number, layout: readonly Axis[], foldScale: boolean): readonly Link[] =>
    upstream(graph, node.inputs[input]!, layout, knowledge, axes.space, { foldScale });
  return {
    anchor: fusedAnchor(node),
    isCausal: false,
    left: -1,
    right: -1,
    site: buildSite({
      node,
      axes,
      form,
      query: up(0, flat(axes.rows, axes.channels), true),
      key: up(1, flat(axes.newKeys, axes.channels), true),
      value: up(2, flat(axes.newKeys, axes.valueChannels), false),
      output: downstream(graph, node.outputs[0]!, flat(axes.rows, axes.valueChannels), knowledge, axes.space),
      past: null,
      prepare: prelude.run,
    }),
  };
}
