/**
 * float16 and bfloat16 in TypeScript: both are kept as the bits of a Uint16Array and converted to and from numbers here.
 * Decoding is exact; encoding rounds once, to nearest, ties to even, straight from double.
 */

interface HalfFormat {
  readonly fractionBits: number;
  readonly exponentBias: number;
}

const FLOAT16: HalfFormat = { fractionBits: 10, exponentBias: 15 };
const BFLOAT16: HalfFormat = { fractionBits: 7, exponentBias: 127 };

export const float16ToNumber = (bits: number): number => decode(bits, FLOAT16);
export const bfloat16ToNumber = (bits: number): number => decode(bits, BFLOAT16);
/** Values beyond the largest float16, 65504, become infinite once rounding passes 65520. */
export const numberToFloat16 = (value: number): number => encode(value, FLOAT16);
export const numberToBfloat16 = (value: number): number => encode(value, BFLOAT16);

function decode(bits: number, { fractionBits, exponentBias }: HalfFormat): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits & 0x7fff) >> fractionBits;
  const fraction = (bits & ((1 << fractionBits) - 1)) / 2 ** fractionBits;
  if (exponent === 0) return sign * fraction * 2 ** (1 - exponentBias);
  if (exponent === 2 * exponentBias + 1) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction) * 2 ** (exponent - exponentBias);
}

function encode(value: number, { fractionBits, exponentBias }: HalfFormat): number {
  const infinity = (2 * exponentBias + 1) << fractionBits;
  if (Number.isNaN(value)) return infinity | (1 << (fractionBits - 1));
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude === Infinity) return sign | infinity;
  const exponent = Math.max(floorLog2(magnitude), 1 - exponentBias);
  const quanta = roundToEven(magnitude / 2 ** (exponent - fractionBits));
  // Adding the quanta to the exponent field carries into it when rounding reaches the next power of two.
  const bits = ((exponent + exponentBias - 1) << fractionBits) + quanta;
  return sign | Math.min(bits, infinity);
}

/** Exact for every positive double: Math.log2 alone can be off by one next to a power of two. */
function floorLog2(magnitude: number): number {
  if (magnitude < 2 ** -1000) return -1001;
  const guess = Math.floor(Math.log2(magnitude));
  if (2 ** guess > magnitude) return guess - 1;
  return 2 ** (guess + 1) <= magnitude ? guess + 1 : guess;
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest === 0.5) return floor + (floor % 2);
  return rest > 0.5 ? floor + 1 : floor;
}
