/** Mutations that know nothing of the format: bits, bytes, numbers, runs, splices. */
import type { Random } from './random.js';

const INTERESTING = [0, 1, 2, 7, 8, 16, 31, 32, 64, 127, 128, 129, 254, 255];

/** One blind change; `other` is a second input to take pieces from. */
export function mutateBytes(input: Uint8Array, other: Uint8Array, random: Random): Uint8Array {
  if (input.length === 0) return Uint8Array.of(random.below(256));
  const at = random.below(input.length);
  switch (random.below(8)) {
    case 0:
      return edited(input, (bytes) => (bytes[at]! ^= 1 << random.below(8)));
    case 1:
      return edited(input, (bytes) => (bytes[at] = random.pick(INTERESTING)));
    case 2:
      return edited(input, (bytes) => (bytes[at] = random.below(256)));
    case 3: {
      const count = Math.min(input.length - at, 1 + random.below(16));
      return joined(input.subarray(0, at), input.subarray(at + count));
    }
    case 4: {
      const count = Math.min(input.length - at, 1 + random.below(64));
      return joined(input.subarray(0, at + count), input.subarray(at));
    }
    case 5: {
      const from = random.below(Math.max(1, other.length));
      const count = Math.min(other.length - from, 1 + random.below(64));
      return joined(input.subarray(0, at), other.subarray(from, from + count), input.subarray(at));
    }
    case 6:
      return joined(
        input.subarray(0, at),
        Uint8Array.of(0xff, 0xff, 0xff, 0xff, random.below(256)),
        input.subarray(at),
      );
    default:
      return input.slice(0, at);
  }
}

function edited(input: Uint8Array, edit: (bytes: Uint8Array) => void): Uint8Array {
  const bytes = Uint8Array.from(input);
  edit(bytes);
  return bytes;
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
