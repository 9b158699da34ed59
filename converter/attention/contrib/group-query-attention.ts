/** The reader of com.microsoft GroupQueryAttention, which makes its rotary positions an operator of their own. */
import type { Knowledge } from '../../graph/knowledge.js';
import { floatAttribute, intAttribute, nodeLabel, textAttribute, type GraphNode } from '../../graph/node.js';
import { downstream, upstream, type Link } from '../chains.js';
import { Refused } from '../form.js';
import {
  addMask,
  buildSite,
  callAxes,
  emptyForm,
  fixed,
  fusedAnchor,
  given,
  labelMask,
  readPast,
  sizesOf,
  unsupported,
  type FusedReading,
} from '../fused.js';
import type { Axis } from '../layout.js';
import { divided, link, scaleOf } from './operands.js';
import { Prelude } from './prelude.js';

/** com.microsoft GroupQueryAttention: causal, with a cache, shared key heads, and rotary positions applied inside. */
export function readGroupQuery(node: GraphNode, knowledge: Knowledge): FusedReading {
  const { graph } = node;
  const heads = intAttribute(node, 'num_heads', 0);
  const kvHeads = intAttribute(node, 'kv_num_heads', 0);
  if (intAttribute(node, 'smooth_softmax', 0) > 0 || given(node, 11) !== null) {
    throw new Refused(
      'attention-sink',
      `'${nodeLabel(node)}' lets an extra score without a value take part`,
      [node],
    );
  }
  for (const attribute of ['k_quant_type', 'v_quant_type']) {
    if (textAttribute(node, attribute, 'NONE') !== 'NONE')
      throw new Refused('quantized', `'${nodeLabel(node)}' keeps a quantised cache`, [node]);
  }
  if (node.outputs[3])
    throw new Refused('unsupported-outputs', `'${nodeLabel(node)}' yields its scores`, [node]);
  const q = sizesOf(node, node.inputs[0]!, knowledge);
  const isPacked = given(node, 1) === null;
  const headSize = divided(q[2]!, isPacked ? heads + 2 * kvHeads : heads, node);
  const past = readPast(node, 3, 4, knowledge);
  const axes = callAxes({
    batch: q[0]!,
    heads,
    kvHeads,
    rows: q[1]!,
    newKeys: q[1]!,
    past: past?.length ?? null,
    headSize,
    valueHeadSize: headSize,
  });
  const form = emptyForm(scaleOf(node, fixed(headSize, node)), floatAttribute(node, 'softcap', 0));
  const bias = given(node, 10);
  if (bias !== null) addMask(form, labelMask(node, bias, axes, knowledge), node, knowledge);
  const prelude = new Prelude(node);
  const type = knowledge.type(graph, node.inputs[0]!);
  const all = [...axes.kvHeads, ...axes.group];
  let names: readonly [string, string, string] = [
    node.inputs[0]!,
    node.inputs[1] ?? '',
    node.inputs[2] ?? '',
  ];
  if (isPacked) {
    const size = fixed(headSize, node);
    const parts = [prelude.name('query'), prelude.name('key'), prelude.name('value')] as const;
    const source = names[0];
    prelude.add((emitter) => emitter.split(source, 2, [heads * size, kvHeads * size, kvHeads * size], parts));
    names = parts;
  }
  const rotates = intAttribute(node, 'do_rotary', 0) === 1;
  const [query, key] = rotates ? rotate(node, names, past?.key ?? null, { heads, kvHeads }, prelude) : names;
  const window = intAttribute(node, 'local_window_size', -1);
  const isReal = !isPacked && !rotates;
  const chain = (name: string, layout: readonly Axis[], foldScale: boolean): readonly Link[] =>
    isReal
      ? upstream(graph, name, layout, knowledge, axes.space, { foldScale })
      : [link(node, name, layout, type)];
  return {
    anchor: fusedAnchor(node),
    isCausal: true,
    left: window > 0 ? window - 1 : -1,
    right: -1,
    site: buildSite({
      node,
      axes,
      form,
      query: chain(query, [axes.batch, axes.rows, [...all, ...axes.channels]], true),
      key: chain(key, [axes.batch, axes.newKeys, [...axes.kvHeads, ...axes.channels]], false),
      value: chain(names[2], [axes.batch, axes.newKeys, [...axes.kvHeads, ...axes.valueChannels]], false),
      output: downstream(
        graph,
        node.outputs[0]!,
        [axes.batch, axes.rows, [...all, ...axes.valueChannels]],
        knowledge,
        axes.space,
      ),
      past: {
        key: past?.key ?? null,
        value: past?.value ?? null,
        presentKey: node.outputs[1] ?? '',
        presentValue: node.outputs[2] ?? '',
      },
      prepare: prelude.run,
    }),
  };
}

/** Rotary positions as their own operator; positions go on from the length of the past. */
function rotate(
  node: GraphNode,
  names: readonly [string, string, string],
  past: string | null,
  count: { readonly heads: number; readonly kvHeads: number },
  prelude: Prelude,
): readonly [string, string] {
  const [cos, sin] = [given(node, 7), given(node, 8)];
  if (cos === null || sin === null) throw unsupported(node, 'rotates without tables of cosines and sines');
  const outputs = [prelude.name('rotated_query'), prelude.name('rotated_key')] as const;
  const positions = given(node, 9);
  prelude.add((emitter) => {
    const offset =
      positions ??
      (past === null
        ? emitter.ints([0])
        : emitter.apply('Gather', [emitter.apply('Shape', [past]), emitter.ints([2])], { axis: 0 }));
    for (const [i, heads] of [count.heads, count.kvHeads].entries()) {
      emitter.add({
        name: emitter.fresh('RotaryEmbedding'),
        opType: 'RotaryEmbedding',
        domain: 'com.microsoft',
        inputs: [names[i]!, offset, cos, sin],
        outputs: [outputs[i]!],
        attributes: { interleaved: intAttribute(node, 'rotary_interleaved', 0), num_heads: heads },
      });
    }
  });
  return outputs;
}
