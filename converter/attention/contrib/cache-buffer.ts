/**
 * The cache of com.microsoft GroupQueryAttention: a buffer of L positions per batch entry, of which an entry uses as many as
 * seqlens_k says; new keys and values follow these. The buffer holds just the past, or is longer and kept from call to call.
 * Spelled out in standard operators, for either.
 */
import type { Emitter } from '../../rewrite/emitter.js';
import type { GraphNode } from '../../graph/node.js';
import { DataType } from '../../onnx/tensor.js';

export interface CacheBuffer {
  readonly node: GraphNode;
  /** A value of shape [B, S, ...], whose S is the number of new positions. */
  readonly query: string;
  readonly seqlens: string;
  readonly totalLength: string;
  /** [B, kv heads, L, D]. */
  readonly pastKey: string;
  /** The same for sites whose S and L are equal. */
  readonly sizes: string;
}

/** Values that all sites of a cache need, made once. */
export interface BufferPositions {
  /** int64 [B, S]: where each new position lies. */
  readonly places: string;
  /** int64 [1]: total_sequence_length. */
  readonly total: string;
  /** int64 [1]: positions N of present, the larger of L and the total, and how many of them L lacks. */
  readonly length: string;
  readonly added: string;
}

export function bufferPositions(buffer: CacheBuffer, emitter: Emitter): BufferPositions {
  const { query, seqlens, totalLength, pastKey } = buffer;
  const key = [buffer.node.graph.scope, seqlens, totalLength, buffer.sizes].join('|');
  const shared = (role: string, make: () => string): string => emitter.once(`${role}|${key}`, make);
  const fresh = shared('new length', () => sizeOf(query, 1, emitter));
  const total = shared('total length', () => {
    const wide = emitter.apply('Cast', [totalLength], { to: DataType.int64 });
    return emitter.apply('Reshape', [wide, emitter.ints([1])]);
  });
  const past = shared('past length', () => sizeOf(pastKey, 2, emitter));
  const length = shared('present length', () =>
    emitter.apply('Where', [emitter.apply('Less', [past, total]), total, past]),
  );
  const places = shared('places', () => {
    const counts = emitter.apply('Cast', [seqlens], { to: DataType.int64 });
    const flat = emitter.apply('Reshape', [counts, emitter.ints([-1, 1])]);
    const before = emitter.apply('Add', [
      emitter.apply('Sub', [flat, fresh]),
      emitter.tensor(DataType.int64, [], [1]),
    ]);
    // A call that brings all positions is a prompt and starts at 0, whatever padding follows.
    const isPrompt = emitter.apply('Equal', [fresh, total]);
    const start = emitter.apply('Where', [isPrompt, emitter.tensor(DataType.int64, [], [0]), before]);
    return emitter.apply('Add', [start, range(fresh, emitter)]);
  });
  const added = shared('added length', () => emitter.apply('Sub', [length, past]));
  return { places, total, length, added };
}

/**
 * bool [B, S, length]: the row at position p sees the keys up to p, and with a window only the last `window` of these.
 * @param length int64 [1]
 */
export function bufferMask(
  { places }: BufferPositions,
  length: string,
  window: number,
  emitter: Emitter,
): string {
  return emitter.once(`mask ${window}|${places}|${length}`, () => {
    const keys = range(length, emitter);
    const rows = emitter.unsqueeze(places, [2]);
    const isPast = emitter.apply('Not', [emitter.apply('Less', [rows, keys])]);
    if (window <= 0) return isPast;
    const last = emitter.apply('Sub', [rows, emitter.tensor(DataType.int64, [], [window])]);
    return emitter.apply('And', [isPast, emitter.apply('Less', [last, keys])]);
  });
}

export interface BufferRows {
  /** [B, kv heads, L, D]. */
  readonly past: string;
  /** [B, S, kv heads * D]. */
  readonly fresh: string;
  readonly kvHeads: number;
  readonly headSize: number;
  /** Number of TensorProto.DataType. */
  readonly type: number;
}

/** Writes new rows into the buffer, grown where it is too short: `output` is [B, kv heads, N, D]. */
export function writeBuffer(
  { past, fresh, kvHeads, headSize, type }: BufferRows,
  { places, added }: BufferPositions,
  emitter: Emitter,
  output: string,
): void {
  const four = emitter.apply('Reshape', [fresh, emitter.ints([0, 0, kvHeads, headSize])]);
  const rows = emitter.apply('Transpose', [four], { perm: [0, 2, 1, 3] });
  const batch = sizeOf(past, 0, emitter);
  const room = emitter.apply('Concat', [batch, emitter.ints([kvHeads]), added, emitter.ints([headSize])], {
    axis: 0,
  });
  const empty = emitter.apply('Expand', [emitter.scalar(type, 0), room]);
  const buffer = emitter.apply('Concat', [past, empty], { axis: 2 });
  const indices = emitter.apply('Expand', [
    emitter.unsqueeze(places, [1, 3]),
    emitter.apply('Shape', [rows]),
  ]);
  emitter.apply('ScatterElements', [buffer, indices, rows], { axis: 2 }, output);
}

function sizeOf(value: string, axis: number, emitter: Emitter): string {
  return emitter.apply('Gather', [emitter.apply('Shape', [value]), emitter.ints([axis])], { axis: 0 });
}

/** 0, 1, ... as int64 for a count of shape [1]. */
function range(count: string, emitter: Emitter): string {
  const integer = (value: number): string => emitter.tensor(DataType.int64, [], [value]);
  const end = emitter.apply('Gather', [count, integer(0)], { axis: 0 });
  return emitter.apply('Range', [integer(0), end, integer(1)]);
}
