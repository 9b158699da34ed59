/**
 * `npm run bench:web [-- --json FILE]`: our WGSL kernels in Node (Dawn) against ONNX Runtime's WebGPU provider on the same
 * adapter. VK_ICD_FILENAMES chooses the Vulkan driver; without it SwiftShader is used. A peer whose results are wrong on
 * the adapter is not timed, and the row says so. Ratios above 1: ours is faster.
 */

import { renameSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { float16ToNumber } from '../../op/half.js';
import { openDevice } from './device.js';
import { bytesOf, hostData, KernelBench, slope } from './kernels.js';
import type { PeerKind } from './models.js';
import { peerResult, peerTime } from './peers.js';
import { benchShapes, type BenchShape, decodeShapes, flopsOf, nameOf } from './shapes.js';

interface Row {
  readonly shape: string;
  readonly queryLength: number;
  readonly milliseconds: number;
  readonly gflops: number;
  /** Milliseconds of the peer; `null` where its results are wrong here or it failed. */
  readonly ort: number | null;
  readonly function: number | null;
  readonly remarks: readonly string[];
}

/** Largest difference, relative to the largest element, of a peer that counts as right. */
const TOLERANCE = { f32: 1e-3, f16: 2e-2 } as const;

const device = await openDevice();
const { description, vendor, architecture } = device.adapterInfo;
const adapter = description || `${vendor} ${architecture}`;
const isSoftware = /swiftshader|llvmpipe/i.test(adapter);
const hasFloat16 = device.features.has('shader-f16');
const bench = new KernelBench(device);
const lengths: readonly [number, number] = isSoftware ? [1, 3] : [2, 22];
const rounds = isSoftware ? 1 : 3;
console.log(`${adapter}; times are milliseconds of one attention, ratios above 1 mean ours is faster\n`);
console.log(['shape'.padEnd(38), 'ours', 'GFLOP/s', 'ORT', 'ratio', 'function', 'ratio'].join('\t'));

const rows: Row[] = [];
for (const shape of benchShapes(isSoftware, hasFloat16)) rows.push(await raceOf(shape));
const decode = isSoftware ? [] : await decodeRows();
const long = isSoftware ? null : await longRow();
const ratios = rows.flatMap(({ ort, milliseconds }) => (ort === null ? [] : [ort / milliseconds]));
const functionRatios = rows
  .filter(({ queryLength, function: time }) => queryLength >= 512 && time !== null)
  .map(({ function: time, milliseconds }) => time! / milliseconds);
const geomean = (values: readonly number[]): number | null =>
  values.length === 0
    ? null
    : Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
const summary = {
  geomeanVsOrt: geomean(ratios),
  worstVsOrt: ratios.length === 0 ? null : Math.min(...ratios),
  vsFunctionBody512: geomean(functionRatios),
  boundaryMs: null,
};
console.log(`\n${JSON.stringify(summary)}`);
const at = process.argv.indexOf('--json');
const file = at < 0 ? undefined : process.argv[at + 1];
if (file !== undefined) {
  const machine = { adapter, cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
  writeFileSync(`${file}.part`, `${JSON.stringify({ machine, rows, decode, long, summary }, null, 2)}\n`);
  renameSync(`${file}.part`, file);
}
process.exit(0);

async function raceOf(shape: BenchShape): Promise<Row> {
  const ours = bench.prepare(shape);
  const milliseconds = await slope(ours.run, lengths, rounds);
  const found = numbers(new Uint8Array(await ours.result()), shape);
  ours.free();
  const ownError = sampledError(found, shape);
  if (!(ownError < TOLERANCE[shape.type]))
    throw new Error(`our result for ${nameOf(shape)} is wrong here: error ${ownError}`);
  const remarks: string[] = [];
  // The CPU provider has no float16 attention.
  const single: BenchShape = { ...shape, type: 'f32' };
  const peer = async (kind: PeerKind): Promise<number | null> => {
    try {
      const result = await peerResult(shape, kind, 'webgpu');
      const values = numbers(new Uint8Array(result.buffer, result.byteOffset, result.byteLength), shape);
      const right =
        kind === 'function' ? found : numbers(bytes(await peerResult(single, kind, 'cpu')), single);
      const error = relativeDifference(values, right);
      if (error > TOLERANCE[shape.type]) {
        remarks.push(`${kind} is wrong here: error ${error.toExponential(1)}`);
        return null;
      }
      return await peerTime(shape, kind, kind === 'function' && !isSoftware ? [1, 5] : lengths, rounds);
    } catch (error) {
      remarks.push(`${kind} failed: ${String(error).split('\n')[0]}`);
      return null;
    }
  };
  const ort = await peer('MultiHeadAttention');
  const body = await peer('function');
  const row: Row = {
    shape: nameOf(shape),
    queryLength: shape.queryLength,
    milliseconds,
    gflops: flopsOf(shape) / milliseconds / 1e6,
    ort,
    function: body,
    remarks,
  };
  const ratio = (time: number | null): string => (time === null ? '-' : (time / milliseconds).toFixed(2));
  const text = (time: number | null): string => (time === null ? '-' : time.toFixed(3));
  console.log(
    [
      row.shape.padEnd(38),
      text(milliseconds),
      row.gflops.toFixed(0),
      text(ort),
      ratio(ort),
      text(body),
      ratio(body),
    ].join('\t'),
  );
  for (const remark of remarks) console.log(`    ${remark}`);
  return row;
}

async function decodeRows(): Promise<object[]> {
  const copy = await bench.copyBandwidth(2 ** 28);
  const found: object[] = [];
  for (const shape of decodeShapes(hasFloat16)) {
    const ours = bench.prepare(shape);
    const milliseconds = await slope(ours.run, [4, 44]);
    ours.free();
    const read = 2 * shape.keyLength * shape.heads * shape.headSize * (shape.type === 'f32' ? 4 : 2);
    const bandwidth = read / (milliseconds / 1000);
    console.log(
      `decode ${nameOf(shape)}: ${milliseconds.toFixed(3)} ms, ${(bandwidth / 1e9).toFixed(0)} GB/s, ${((100 * bandwidth) / copy).toFixed(0)} % of a copy (${(copy / 1e9).toFixed(0)} GB/s read and written)`,
    );
    found.push({ shape: nameOf(shape), milliseconds, bandwidth, copy });
  }
  return found;
}

async function longRow(): Promise<object> {
  const shape: BenchShape = { type: 'f32', heads: 8, queryLength: 16384, keyLength: 16384, headSize: 64 };
  const ours = bench.prepare(shape);
  const milliseconds = await slope(ours.run, [1, 3], 3);
  ours.free();
  console.log(
    `${nameOf(shape)}: ${milliseconds.toFixed(2)} ms, ${(flopsOf(shape) / milliseconds / 1e6).toFixed(0)} GFLOP/s`,
  );
  return { shape: nameOf(shape), milliseconds };
}

function bytes(data: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function numbers(data: Uint8Array, { type }: BenchShape): Float32Array {
  const copy = data.slice().buffer;
  return type === 'f32' ? new Float32Array(copy) : Float32Array.from(new Uint16Array(copy), float16ToNumber);
}

/** Error of a few rows of ours against float64, relative to the largest element. */
function sampledError(found: Float32Array, shape: BenchShape): number {
  const { heads, headSize, queryLength, keyLength, type } = shape;
  const width = heads * headSize;
  const data = hostData(shape);
  const stored = (values: Float32Array): ArrayLike<number> =>
    type === 'f32' ? values : Float32Array.from(bytesOf(values, type), float16ToNumber);
  const [q, k, v] = [stored(data.x), stored(data.k), stored(data.v)];
  let difference = 0;
  let largest = 0;
  for (let sample = 0; sample < 8; sample++) {
    const [h, i] = [(sample * 5) % heads, (sample * 977) % queryLength];
    const y = new Float64Array(headSize);
    for (let j = 0; j < keyLength; j++) {
      let score = 0;
      for (let d = 0; d < headSize; d++)
        score += q[i * width + h * headSize + d]! * k[j * width + h * headSize + d]!;
      const weight = 1 / (1 + Math.exp(Math.log(keyLength) - score / Math.sqrt(headSize)));
      for (let d = 0; d < headSize; d++) y[d]! += weight * v[j * width + h * headSize + d]!;
    }
    for (let d = 0; d < headSize; d++) {
      const error = Math.abs(found[i * width + h * headSize + d]! - y[d]!);
      if (!(error <= difference)) difference = error;
      largest = Math.max(largest, Math.abs(y[d]!));
    }
  }
  return difference / largest;
}

function relativeDifference(a: Float32Array, b: Float32Array): number {
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < b.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= difference)) difference = d;
    largest = Math.max(largest, Math.abs(b[i]!));
  }
  return difference / largest;
}
