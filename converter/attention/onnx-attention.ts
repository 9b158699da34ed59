/** Reads ONNX Attention (opset 23 and later): inputs Q, K, V, attn_mask, past_key, past_value, nonpad_kv_seqlen. */
import type { Knowledge, Size } from '../graph/knowledge.js';
import { floatAttribute, intAttribute, nodeLabel, type GraphNode } from '../graph/node.js';
import { downstream, upstream, type Link } from './chains.js';
import { Refused } from './form.js';
import {
  addMask,
  buildSite,
  callAxes,
  callPast,
  emptyForm,
  fixed,
  fusedAnchor,
  given,
  labelMask,
  readPast,
  sizesOf,
  unsupported,
  type FusedReading,
} from './fused-call.js';
import type { Axis } from './layout.js';

export function readOnnxAttention(node: GraphNode, knowledge: Knowledge): FusedReading {
  const { graph } = node;
  const [qName, kName, vName] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2]!];
  const [q, k, v] = [qName, kName, vName].map((name) => sizesOf(node, name, knowledge)) as [
    Size[],
    Size[],
    Size[],
  ];
  const rank = q.length;
  if ((rank !== 3 && rank !== 4) || k.length !== rank || v.length !== rank)
    throw unsupported(node, 'has inputs of unequal rank');
  if (node.outputs[3])
    throw new Refused('unsupported-outputs', `'${nodeLabel(node)}' yields its scores or weights`, [node]);
  const heads = rank === 4 ? fixed(q[1]!, node) : intAttribute(node, 'q_num_heads', 0);
  const kvHeads = rank === 4 ? fixed(k[1]!, node) : intAttribute(node, 'kv_num_heads', 0);
  if (heads < 1 || kvHeads < 1 || heads % kvHeads !== 0)
    throw unsupported(node, `has ${heads} query heads and ${kvHeads} key heads`);
  const part = (size: Size, count: number): Size => size.map((value) => value / count);
  const headSize = rank === 4 ? q[3]! : part(q[2]!, heads);
  const valueHeadSize = rank === 4 ? v[3]! : part(v[2]!, kvHeads);
  const past = readPast(node, 4, 5, knowledge);
  const position = rank === 4 ? 2 : 1;
  const axes = callAxes({
    batch: q[0]!,
    heads,
    kvHeads,
    rows: q[position]!,
    newKeys: k[position]!,
    past: past?.length ?? null,
    headSize,
    valueHeadSize,
  });
  const arrange = (head: Axis, rows: Axis, channel: Axis): Axis[] =>
    rank === 4 ? [axes.batch, head, rows, channel] : [axes.batch, rows, [...head, ...channel]];
  const all = [...axes.kvHeads, ...axes.group];
  const form = emptyForm(
    floatAttribute(node, 'scale', 1 / Math.sqrt(fixed(headSize, node))),
    floatAttribute(node, 'softcap', 0),
  );
  const mask = given(node, 3);
  if (mask !== null) addMask(form, labelMask(node, mask, axes, knowledge), node, knowledge);
  const up = (name: string, layout: readonly Axis[], foldScale: boolean): Link[] =>
    upstream(graph, name, layout, knowledge, axes.space, { foldScale });
  return {
    anchor: fusedAnchor(node),
    isCausal: intAttribute(node, 'is_causal', 0) === 1,
    left: -1,
    right: -1,
    site: buildSite({
      node,
      axes,
      form,
      query: up(qName, arrange(all, axes.rows, axes.channels), true),
      key: up(kName, arrange(axes.kvHeads, axes.newKeys, axes.channels), past === null && !node.outputs[1]),
      value: up(vName, arrange(axes.kvHeads, axes.newKeys, axes.valueChannels), false),
      output: downstream(
        graph,
        node.outputs[0]!,
        arrange(all, axes.rows, axes.valueChannels),
        knowledge,
        axes.space,
      ),
      past: callPast(node, past),
      nonpad: given(node, 6),
    }),
  };
}
