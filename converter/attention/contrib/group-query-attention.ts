/** The reader of com.microsoft GroupQueryAttention, which makes its rotary positions an operator of their own. */
import { FRESH_BASE } from '../../graph/shape-rule.js';
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
} from '../fused-call.js';
import type { Axis } from '../layout.js';
import { bufferMask, bufferPositions, writeBuffer, type CacheBuffer } from './cache-buffer.js';
import { divided, link, scaleOf, uniform } from './operands.js';
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
  const q = sizesOf(node, node.inputs[0]!, knowledge, [3]);
  const isPacked = given(node, 1) === null;
  const headSize = divided(q[2]!, isPacked ? heads + 2 * kvHeads : heads, node);
  const past = readPast(node, 3, 4, knowledge);
  const bias = given(node, 10);
  const sizes = { batch: q[0]!, heads, kvHeads, rows: q[1]!, past: null, headSize, valueHeadSize: headSize };
  // How many positions the cache holds in the end is told when the model runs; a bias has one for each.
  const total = bias === null ? uniform(FRESH_BASE, q[1]!) : sizesOf(node, bias, knowledge, [4]).at(-1)!;
  const axes = callAxes({ ...sizes, newKeys: past === null ? q[1]! : total });
  const form = emptyForm(scaleOf(node, fixed(headSize, node)), floatAttribute(node, 'softcap', 0));
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
  const buffer: CacheBuffer | null = past && {
    node,
    query: node.inputs[0]!,
    seqlens: node.inputs[5]!,
    totalLength: node.inputs[6]!,
    pastKey: past.key,
    sizes: [q[1]!, past.length].map((size) => size.join('/')).join(),
  };
  const rotates = intAttribute(node, 'do_rotary', 0) === 1;
  const [query, key] = rotates ? rotate(node, names, buffer, { heads, kvHeads }, prelude) : names;
  const window = intAttribute(node, 'local_window_size', -1);
  const isReal = !isPacked && !rotates;
  const chain = (name: string, layout: readonly Axis[], foldScale: boolean): readonly Link[] =>
    isReal
      ? upstream(graph, name, layout, knowledge, axes.space, { foldScale })
      : [link(node, name, layout, type)];
  const output = downstream(
    graph,
    node.outputs[0]!,
    [axes.batch, axes.rows, [...all, ...axes.valueChannels]],
    knowledge,
    axes.space,
  );
  const shared = { node, axes, form, output, prepare: prelude.run };
  const queryChain = chain(query, [axes.batch, axes.rows, [...all, ...axes.channels]], true);
  if (buffer !== null) {
    const rows = { kvHeads, headSize: fixed(headSize, node), type };
    const cached = bufferedKeys(buffer, { ...rows, key, value: names[2], pastValue: past!.value }, prelude, {
      window,
      cut: bias !== null,
    });
    form.visible.push({
      condition: { name: cached.visible, axes: [axes.batch, axes.rows, axes.keys] },
      negated: false,
      fill: -Infinity,
      node,
    });
    // Each row sees itself.
    form.guarded = true;
    const layout = [axes.batch, axes.kvHeads, axes.keys, axes.channels];
    const site = buildSite({
      ...shared,
      query: queryChain,
      key: [link(node, cached.key, layout, type)],
      value: [link(node, cached.value, layout.with(3, axes.valueChannels), type)],
      past: null,
    });
    return {
      anchor: fusedAnchor(node),
      isCausal: false,
      left: -1,
      right: -1,
      site: { ...site, keepsBuffer: true },
    };
  }
  return {
    anchor: fusedAnchor(node),
    isCausal: true,
    left: window > 0 ? window - 1 : -1,
    right: -1,
    site: buildSite({
      ...shared,
      query: queryChain,
      key: chain(key, [axes.batch, axes.newKeys, [...axes.kvHeads, ...axes.channels]], false),
      value: chain(names[2], [axes.batch, axes.newKeys, [...axes.kvHeads, ...axes.valueChannels]], false),
      past: {
        key: null,
        value: null,
        presentKey: node.outputs[1] ?? '',
        presentValue: node.outputs[2] ?? '',
      },
    }),
  };
}

interface NewRows {
  readonly key: string;
  readonly value: string;
  readonly pastValue: string;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly type: number;
}

/** Keys and values as the buffer holds them after the call, and the mask over its positions. */
function bufferedKeys(
  buffer: CacheBuffer,
  { key, value, pastValue, ...rows }: NewRows,
  prelude: Prelude,
  { window, cut }: { readonly window: number; readonly cut: boolean },
): { key: string; value: string; visible: string } {
  const { node } = buffer;
  const presents = [1, 2].map((at) => node.outputs[at] || prelude.name(`present_${at}`));
  const read = cut ? [prelude.name('key_rows'), prelude.name('value_rows')] : presents;
  const visible = prelude.name('visible');
  prelude.add((emitter) => {
    const positions = bufferPositions(buffer, emitter);
    const pasts = [buffer.pastKey, pastValue];
    for (const [i, fresh] of [key, value].entries()) {
      writeBuffer({ ...rows, past: pasts[i]!, fresh }, positions, emitter, presents[i]!);
      if (!cut) continue;
      const [start, axis] = [emitter.ints([0]), emitter.ints([2])];
      emitter.apply('Slice', [presents[i]!, start, positions.total, axis], {}, read[i]);
    }
    const length = cut ? positions.total : positions.length;
    emitter.apply('Identity', [bufferMask(positions, length, window, emitter)], {}, visible);
  });
  return { key: read[0]!, value: read[1]!, visible };
}

/** Rotary positions as their own operator; positions go on from the length of the past. */
function rotate(
  node: GraphNode,
  names: readonly [string, string, string],
  buffer: CacheBuffer | null,
  count: { readonly heads: number; readonly kvHeads: number },
  prelude: Prelude,
): readonly [string, string] {
  const [cos, sin] = [given(node, 7), given(node, 8)];
  if (cos === null || sin === null) throw unsupported(node, 'rotates without tables of cosines and sines');
  const outputs = [prelude.name('rotated_query'), prelude.name('rotated_key')] as const;
  const positions = given(node, 9);
  prelude.add((emitter) => {
    const offset =
      positions ?? (buffer === null ? emitter.ints([0]) : bufferPositions(buffer, emitter).places);
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
