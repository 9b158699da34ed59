/** The reader of com.microsoft MultiHeadAttention, for operands apart or packed and with or without biases. */
import type { Knowledge } from '../../graph/knowledge.js';
import { intAttribute, nodeLabel, type GraphNode } from '../../graph/node.js';
import { downstream, upstream, type Link } from '../chains.js';
import { Refused } from '../form.js';
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
  type CallAxes,
  type FusedReading,
} from '../fused-call.js';
import type { Axis } from '../layout.js';
import { addKeyMask } from './key-mask.js';
import { divided, link, scaleOf } from './operands.js';
import { Prelude } from './prelude.js';

/** com.microsoft MultiHeadAttention: queries, keys and values apart or packed, with a bias on each. */
export function readMultiHead(node: GraphNode, knowledge: Knowledge): FusedReading {
  const { graph } = node;
  const heads = intAttribute(node, 'num_heads', 0);
  for (const [input, what] of [
    [8, 'a length of a shared past'],
    [9, 'a cache indirection'],
  ] as const) {
    if (given(node, input) !== null) throw unsupported(node, `has ${what}`);
  }
  if (node.outputs[3])
    throw new Refused('unsupported-outputs', `'${nodeLabel(node)}' yields its scores`, [node]);
  const q = sizesOf(node, node.inputs[0]!, knowledge, [3, 5]);
  const keyName = given(node, 1);
  const valueName = given(node, 2);
  const k = keyName === null ? null : sizesOf(node, keyName, knowledge, [3, 4, 5]);
  const v = valueName === null ? null : sizesOf(node, valueName, knowledge, [3, 4]);
  const packed = q.length === 5 ? 'qkv' : k?.length === 5 ? 'kv' : 'none';
  if (packed === 'none' && (k === null || v === null)) throw unsupported(node, 'lacks keys or values');
  const headSize = q.length === 5 ? q[4]! : divided(q[2]!, heads, node);
  const keyRows = packed === 'qkv' ? q[1]! : k!.length === 4 ? k![2]! : k![1]!;
  const valueHeadSize =
    packed === 'none' ? (v!.length === 4 ? v![3]! : divided(v![2]!, heads, node)) : headSize;
  const past = readPast(node, 6, 7, knowledge);
  const axes = callAxes({
    batch: q[0]!,
    heads,
    kvHeads: heads,
    rows: q[1]!,
    newKeys: keyRows,
    past: past?.length ?? null,
    headSize,
    valueHeadSize,
  });
  const form = emptyForm(scaleOf(node, fixed(headSize, node)), 0);
  const prelude = new Prelude(node);
  const isCausal = intAttribute(node, 'unidirectional', 0) === 1;
  const mask = given(node, 4);
  const { nonpad } =
    mask === null ? { nonpad: null } : addKeyMask(node, mask, axes, form, prelude, isCausal, knowledge);
  const bias = given(node, 5);
  if (bias !== null) addMask(form, labelMask(node, bias, axes, knowledge), node, knowledge);
  const all = [...axes.kvHeads, ...axes.group];
  const flat = (rows: Axis, channels: Axis): Axis[] => [axes.batch, rows, [...all, ...channels]];
  const parts = multiHeadParts(
    node,
    packed,
    { axes, heads: all, keyRank: k?.length ?? 3 },
    prelude,
    knowledge,
  );
  return {
    anchor: fusedAnchor(node),
    isCausal,
    left: -1,
    right: -1,
    site: buildSite({
      node,
      axes,
      form,
      ...parts,
      output: downstream(graph, node.outputs[0]!, flat(axes.rows, axes.valueChannels), knowledge, axes.space),
      past: callPast(node, past),
      nonpad,
      prepare: prelude.run,
    }),
  };
}

interface MultiHeadLayout {
  readonly axes: CallAxes;
  readonly heads: Axis;
  readonly keyRank: number;
}

function multiHeadParts(
  node: GraphNode,
  packed: 'qkv' | 'kv' | 'none',
  { axes, heads, keyRank }: MultiHeadLayout,
  prelude: Prelude,
  knowledge: Knowledge,
): { query: readonly Link[]; key: readonly Link[]; value: readonly Link[] } {
  const { graph } = node;
  const { batch, rows, newKeys, channels, valueChannels } = axes;
  const type = knowledge.type(graph, node.inputs[0]!);
  const biasName = given(node, 3);
  const split = (source: string, roles: readonly string[]): Link[] => {
    const names = roles.map((role) => prelude.name(role));
    const ones = roles.map(() => 1);
    prelude.add((emitter) => emitter.split(source, 3, ones, names));
    return names.map((name, i) => {
      const channel = roles[i] === 'value' ? valueChannels : channels;
      return link(node, name, [batch, roles[i] === 'query' ? rows : newKeys, heads, [], channel], type);
    });
  };
  const whole = (
    name: string,
    position: Axis,
    channel: Axis,
    isHeadsFirst: boolean,
    foldScale: boolean,
  ): readonly Link[] =>
    upstream(
      graph,
      name,
      isHeadsFirst ? [batch, heads, position, channel] : [batch, position, [...heads, ...channel]],
      knowledge,
      axes.space,
      { foldScale },
    );
  if (packed !== 'none') {
    if (biasName !== null) throw unsupported(node, 'adds a bias to packed operands');
    if (packed === 'qkv') {
      const [query, key, value] = split(node.inputs[0]!, ['query', 'key', 'value']) as [Link, Link, Link];
      return { query: [query], key: [key], value: [value] };
    }
    const [key, value] = split(node.inputs[1]!, ['key', 'value']) as [Link, Link];
    return { query: whole(node.inputs[0]!, rows, channels, false, true), key: [key], value: [value] };
  }
  const isHeadsFirst = keyRank === 4;
  if (biasName === null) {
    return {
      query: whole(node.inputs[0]!, rows, channels, false, true),
      key: whole(node.inputs[1]!, newKeys, channels, isHeadsFirst, !given(node, 6) && !node.outputs[1]),
      value: whole(node.inputs[2]!, newKeys, valueChannels, isHeadsFirst, false),
    };
  }
  const width = fixed(axes.space.sizeOf([...heads, ...channels]), node);
  const valueWidth = fixed(axes.space.sizeOf([...heads, ...valueChannels]), node);
  const biases = ['query_bias', 'key_bias', 'value_bias'].map((role) => prelude.name(role));
  prelude.add((emitter) => emitter.split(biasName, 0, [width, width, valueWidth], biases));
  const biased = (input: number, role: string): string => {
    const name = prelude.name(role);
    prelude.add((emitter) => emitter.apply('Add', [node.inputs[input]!, biases[input]!], {}, name));
    return name;
  };
  const flat = (name: string, position: Axis, channel: Axis): Link =>
    link(node, name, [batch, position, [...heads, ...channel]], type);
  const query = [flat(biased(0, 'query'), rows, channels)];
  // Keys and values with the heads in front are those of a cross attention, whose bias was added when they were made.
  if (isHeadsFirst) {
    return {
      query,
      key: whole(node.inputs[1]!, newKeys, channels, true, !given(node, 6) && !node.outputs[1]),
      value: whole(node.inputs[2]!, newKeys, valueChannels, true, false),
    };
  }
  return {
    query,
    key: [flat(biased(1, 'key'), newKeys, channels)],
    value: [flat(biased(2, 'value'), newKeys, valueChannels)],
  };
}
