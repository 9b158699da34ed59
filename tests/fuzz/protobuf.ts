/**
 * Mutations that keep a protobuf message well formed: fields are removed, repeated, moved, swapped with those of another
 * message, numbers and texts replaced, messages wrapped in themselves; all lengths around the change are corrected.
 *
 * Written apart from converter/onnx on purpose: a fuzzer that shares the reader's mistakes does not find them.
 */
import { joined, mutateBytes } from './bytes.js';
import type { Random } from './random.js';

interface Field {
  readonly number: number;
  readonly wire: number;
  /** Payload: the bytes of a varint or fixed field, the content of a length-delimited one. */
  readonly payload: Uint8Array;
}

const MAX_DEPTH = 40;
const MAX_SHRINK_DEPTH = 6;

/** The fields of a message, or null when the bytes are none. */
function parse(bytes: Uint8Array): Field[] | null {
  const fields: Field[] = [];
  for (let at = 0; at < bytes.length;) {
    const tag = varint(bytes, at);
    if (tag === null) return null;
    const wire = tag.value & 7;
    const number = Math.floor(tag.value / 8);
    if (number === 0 || number > 4096) return null;
    at = tag.end;
    let end: number;
    if (wire === 0) {
      const value = varint(bytes, at);
      if (value === null) return null;
      end = value.end;
    } else if (wire === 1) end = at + 8;
    else if (wire === 5) end = at + 4;
    else if (wire === 2) {
      const length = varint(bytes, at);
      if (length === null) return null;
      at = length.end;
      end = at + length.value;
    } else return null;
    if (end > bytes.length) return null;
    fields.push({ number, wire, payload: bytes.subarray(at, end) });
    at = end;
  }
  return fields;
}

function varint(bytes: Uint8Array, at: number): { value: number; end: number } | null {
  let value = 0;
  for (let i = 0; i < 10 && at + i < bytes.length; i++) {
    const byte = bytes[at + i]!;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return { value, end: at + i + 1 };
  }
  return null;
}

/** Bytes of an unsigned number as a varint, up to 64 bits. */
function varintBytes(value: bigint): Uint8Array {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, value);
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return Uint8Array.from(out);
}

function print(fields: readonly Field[]): Uint8Array {
  return joined(
    ...fields.flatMap(({ number, wire, payload }) => {
      const tag = varintBytes(BigInt(number * 8 + wire));
      return wire === 2 ? [tag, varintBytes(BigInt(payload.length)), payload] : [tag, payload];
    }),
  );
}

const NUMBERS = [
  0n,
  1n,
  2n,
  3n,
  4n,
  7n,
  8n,
  10n,
  16n,
  64n,
  1n << 31n,
  1n << 32n,
  1n << 62n,
  (1n << 63n) - 1n,
];

/** One change somewhere in the tree of messages; falls back to blind bytes where the input is no message. */
export function mutateProtobuf(input: Uint8Array, other: Uint8Array, random: Random): Uint8Array {
  return mutateMessage(input, other, random, 0) ?? mutateBytes(input, other, random);
}

/** The message with one field less, for every field of it and of the messages in it; shallow ones first. */
export function* withoutOneField(input: Uint8Array, depth = 0): Generator<Uint8Array> {
  const fields = depth > MAX_SHRINK_DEPTH ? null : parse(input);
  if (fields === null) return;
  for (const at of fields.keys()) yield print(fields.toSpliced(at, 1));
  for (const [at, field] of fields.entries()) {
    if (field.wire !== 2 || field.payload.length < 4) continue;
    for (const payload of withoutOneField(field.payload, depth + 1))
      yield print(fields.with(at, { ...field, payload }));
  }
}

function mutateMessage(
  input: Uint8Array,
  other: Uint8Array,
  random: Random,
  depth: number,
): Uint8Array | null {
  const fields = parse(input);
  if (fields === null || fields.length === 0) return null;
  const at = random.below(fields.length);
  const field = fields[at]!;
  // Deeper with a chance that grows with what lies there.
  if (field.wire === 2 && depth < MAX_DEPTH && random.below(4) > 0) {
    const inner =
      mutateMessage(field.payload, other, random, depth + 1) ?? mutateText(field.payload, other, random);
    return print(fields.with(at, { ...field, payload: inner }));
  }
  switch (random.below(7)) {
    case 0:
      return print(fields.toSpliced(at, 1));
    case 1:
      return print(fields.toSpliced(random.below(fields.length + 1), 0, field));
    case 2: {
      const to = random.below(fields.length);
      return print(fields.with(at, fields[to]!).with(to, field));
    }
    case 3: {
      const donor = donorField(other, random);
      return donor === null ? null : print(fields.toSpliced(at, 0, donor));
    }
    case 4:
      return print(fields.with(at, { ...field, number: 1 + random.below(26) }));
    case 5:
      return print(fields.with(at, { ...field, wire: 2, payload: input }));
    default:
      return print(fields.with(at, changedScalar(field, random)));
  }
}

function changedScalar(field: Field, random: Random): Field {
  if (field.wire === 0) {
    const value = random.pick(NUMBERS);
    return { ...field, payload: varintBytes(random.oneIn(3) ? -value : value) };
  }
  const payload = Uint8Array.from(field.payload);
  if (payload.length > 0) payload[random.below(payload.length)] = random.below(256);
  return { ...field, payload };
}

/** Replaces a text, mostly by another text of the same file, so that names begin to refer to each other. */
function mutateText(payload: Uint8Array, other: Uint8Array, random: Random): Uint8Array {
  if (random.oneIn(3)) return mutateBytes(payload, other, random);
  let bytes = other;
  for (let depth = 0; depth < 6; depth++) {
    const fields = parse(bytes)?.filter(({ wire }) => wire === 2);
    if (!fields || fields.length === 0) break;
    bytes = random.pick(fields).payload;
  }
  return bytes.length > 256 ? payload : bytes;
}

function donorField(other: Uint8Array, random: Random): Field | null {
  let bytes = other;
  let found: Field | null = null;
  for (let depth = random.below(5); depth >= 0; depth--) {
    const fields = parse(bytes);
    if (fields === null || fields.length === 0) break;
    found = random.pick(fields);
    if (found.wire !== 2) break;
    bytes = found.payload;
  }
  return found;
}
