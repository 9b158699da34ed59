/** The reader of com.microsoft Attention, its own projections and its stacked cache included. */
import type { Knowledge } from '../../graph/knowledge.js';
import { intAttribute, intsAttribute, type GraphNode } from '../../graph/node.js';
import { DataType } from '../../onnx/tensor.js';
import { downstream } from '../chains.js';
import {
  type CallPast,
  addMask,
  buildSite,
  callAxes,
  emptyForm,
  fixed,
  fusedAnchor,
  given,
  labelMask,
  sizesOf,
  unsupported,
  type FusedReading,
} from '../fused-call.js';
import type { Axis } from '../layout.js';
import { addKeyMask } from './key-mask.js';
import { link, scaleOf, uniform } from './operands.js';
import { Prelude, type Step } from './prelude.js';

/** com.microsoft Attention: projects one input to queries, keys and values itself. */
export function readContribAttention(node: GraphNode, knowledge: Knowledge): FusedReading {
  const { graph } = node;
  const [x, weights] = [node.inputs[0]!, node.inputs[1]!];
  for (const attribute of ['do_rotary', 'past_present_share_buffer']) {
    if (intAttribute(node, attribute, 0) !== 0) throw unsupported(node, `sets ${attribute}`);
  }
  const heads = intAttribute(node, 'num_heads', 0);
  const sizes = sizesOf(node, x, knowledge);
  const width = fixed(sizesOf(node, weights, knowledge, [2])[1]!, node);
  if (sizes.length !== 3 || heads < 1)
    throw unsupported(node, `has an input of rank ${sizes.length} and ${heads} heads`);
  const widths = intsAttribute(node, 'qkv_hidden_sizes') ?? [width / 3, width / 3, width / 3];
  const [qWidth, , vWidth] = widths as [number, number, number];
  const pastName = given(node, 4);
  const pastSizes = pastName === null ? null : sizesOf(node, pastName, knowledge);
  if (pastSizes !== null && pastSizes.length !== 5)
    throw unsupported(node, `has a past of rank ${pastSizes.length}`);
  const axes = callAxes({
    batch: sizes[0]!,
    heads,
    kvHeads: heads,
    rows: sizes[1]!,
    newKeys: sizes[1]!,
    past: pastSizes?.[3] ?? null,
    headSize: uniform(qWidth / heads, sizes[0]!),
    valueHeadSize: uniform(vWidth / heads, sizes[0]!),
  });
  const form = emptyForm(scaleOf(node, qWidth / heads), 0);
  const prelude = new Prelude(node);
  const isCausal = intAttribute(node, 'unidirectional', 0) === 1;
  const mask = given(node, 3);
  const { nonpad } =
    mask === null ? { nonpad: null } : addKeyMask(node, mask, axes, form, prelude, isCausal, knowledge);
  const bias = given(node, 5);
  if (bias !== null) addMask(form, labelMask(node, bias, axes, knowledge), node, knowledge);
  const names = [prelude.name('query'), prelude.name('key'), prelude.name('value')] as const;
  const projectionBias = given(node, 2);
  prelude.add((emitter) => {
    const product = emitter.apply('MatMul', [x, weights]);
    const projected = projectionBias === null ? product : emitter.apply('Add', [product, projectionBias]);
    emitter.split(projected, 2, widths, names);
  });
  const type = knowledge.type(graph, x);
  const all = [...axes.kvHeads, ...axes.group];
  const flat = (rows: Axis, channels: Axis): Axis[] => [axes.batch, rows, [...all, ...channels]];
  const stacked = stackedPast(pastName, node.outputs[1] ?? '', prelude);
  return {
    anchor: fusedAnchor(node),
    isCausal,
    left: -1,
    right: -1,
    site: buildSite({
      node,
      axes,
      form,
      query: [link(node, names[0], flat(axes.rows, axes.channels), type)],
      key: [link(node, names[1], flat(axes.newKeys, axes.channels), type)],
      value: [link(node, names[2], flat(axes.newKeys, axes.valueChannels), type)],
      output: downstream(graph, node.outputs[0]!, flat(axes.rows, axes.valueChannels), knowledge, axes.space),
      past: stacked?.past ?? null,
      nonpad,
      prepare: prelude.run,
      complete: stacked?.complete ?? null,
    }),
  };
}

/** A past of shape [2, B, H, P, D] is taken apart, and the present put together likewise. */
function stackedPast(
  past: string | null,
  present: string,
  prelude: Prelude,
): { past: CallPast; complete: Step | null } | null {
  if (past === null && present === '') return null;
  const pick = (index: number, role: string): string | null => {
    if (past === null) return null;
    const name = prelude.name(role);
    prelude.add((emitter) =>
      emitter.apply('Gather', [past, emitter.scalar(DataType.int64, index)], { axis: 0 }, name),
    );
    return name;
  };
  const key = pick(0, 'past_key');
  const value = pick(1, 'past_value');
  if (present === '') return { past: { key, value, presentKey: '', presentValue: '' }, complete: null };
  const [presentKey, presentValue] = [prelude.name('present_key'), prelude.name('present_value')];
  const complete: Step = (emitter) => {
    const parts = [presentKey, presentValue].map((name) => emitter.unsqueeze(name, [0]));
    emitter.apply('Concat', parts, { axis: 0 }, present);
  };
  return { past: { key, value, presentKey, presentValue }, complete };
}
