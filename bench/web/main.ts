/**
 * `npm run bench:web [-- --json FILE]`: our WGSL kernels in Node (Dawn) against ONNX Runtime's WebGPU provider on the same
 * adapter, and whole models on ONNX Runtime Web. VK_ICD_FILENAMES chooses the Vulkan driver; without it SwiftShader is used. A
 * peer whose results are wrong on the adapter is not timed, and the row says so. Ratios above 1: ours is faster.
 */

import { renameSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import * as ortNode from 'onnxruntime-node';
import {
  decodeRow,
  type DecodeRow,
  longRow,
  type LongRow,
  prefillRow,
  type PrefillRow,
} from './attention-rows.js';
import { openDevice } from './device.js';
import { KernelBench } from './kernels.js';
import { loadOrtWeb } from './ort-web.js';
import type { Provider } from './peers.js';
import { clock, processorTime } from './race.js';
import { DECODE_SHAPES, LONG_SHAPES, prefillShapes } from './shapes.js';
import { ModelBench, type ModelRow } from './whole-models.js';

const { gpu, device, adapterName, isSoftware } = await openDevice('subgroups');
if (isSoftware) clock.milliseconds = processorTime;
const hasFloat16 = device.features.has('shader-f16');
const rounds = isSoftware ? 3 : 5;
const bench = new KernelBench(device);
// ONNX Runtime's attention is wrong where a subgroup has fewer than 8 lanes, and right on a device without subgroups.
const plain = await openDevice('plain');
const special = await openDevice('matrices');
const matrices = special.hasMatrices ? new KernelBench(special.device) : undefined;
const other = await openDevice('subgroups');
const ortWeb = await loadOrtWeb(gpu, [device, other.device, plain.device]);
const peers: Provider = isSoftware
  ? {
      ort: ortWeb as unknown as Provider['ort'],
      options: { executionProviders: [{ name: 'webgpu', device: plain.device }] as never },
    }
  : {
      ort: ortNode as unknown as Provider['ort'],
      options: { executionProviders: ['webgpu'], logSeverityLevel: 3 },
    };

console.log(`${adapterName}; milliseconds, ratios above 1 mean ours is faster\n`);
const rows: (PrefillRow | DecodeRow | LongRow | ModelRow)[] = [];
let boundaryMs: number | null = null;
const file = argument('--json');
const isOffered = ({ type }: { type: 'f32' | 'f16' }): boolean => type === 'f32' || hasFloat16;

print(
  'prefill',
  ...['ours', 'TFLOP/s', 'ORT', 'ratio', 'function', 'ratio', 'matrices', 'ratio', 'spread', 'clock'],
);
for (const shape of prefillShapes(isSoftware).filter(isOffered)) {
  const row = await prefillRow(bench, shape, { peers, isSoftware, rounds, matrices });
  keep(row);
  print(
    row.shape,
    ...[row.ours, row.tflops, row.ort, row.ratio, row.function, row.functionRatio],
    ...[row.matrices, row.matricesRatio, row.spread, row.clock],
  );
  for (const remark of row.remarks) console.log(`    ${remark}`);
}
if (!isSoftware) {
  print('\ndecode', 'ours', 'on GPU', 'GB/s', 'copy', 'share', 'spread', 'clock');
  for (const shape of DECODE_SHAPES.filter(isOffered)) {
    const row = await decodeRow(bench, shape, rounds);
    keep(row);
    print(row.shape, row.ours, row.gpu, row.bandwidth, row.copyBandwidth, row.share, row.spread, row.clock);
  }
  print('\nlong', 'ours', 'TFLOP/s', 'MB extra', 'MB scores', 'spread', 'clock');
  for (const shape of LONG_SHAPES.filter(isOffered)) {
    const row = await longRow(bench, shape, 3);
    keep(row);
    print(row.shape, row.ours, row.tflops, row.extraBytes / 1e6, row.scoreBytes / 1e6, row.spread, row.clock);
  }
}

const models = new ModelBench(ortWeb, device, other.device);
const size = isSoftware ? { layers: 2, heads: 2, headSize: 64 } : { layers: 4, heads: 12, headSize: 64 };
print('\nwhole model', 'cut', 'original', 'ratio', 'function', 'ratio', 'difference', 'spread', 'clock');
for (const causal of [false, true])
  for (const length of isSoftware ? [16, 64, 256, 512] : [128, 512, 2048, 4096]) {
    const name = `${causal ? 'GPT' : 'ViT'}, ${size.layers} layers of ${size.heads} heads of ${size.headSize}, N ${length}`;
    const row = await models.row(
      name,
      { ...size, length, causal },
      isSoftware ? 3 : 7,
      isSoftware ? undefined : bench,
    );
    keep(row);
    print(
      row.model,
      row.cut,
      row.original,
      row.ratio,
      row.function,
      row.functionRatio,
      row.difference,
      row.spread,
      row.clock,
    );
  }
boundaryMs = await models.boundary(2, 32, rounds);
console.log(`\na cut adds ${boundaryMs.toFixed(2)} ms to a layer`);
save();
console.log(`\n${JSON.stringify(summary())}`);
process.exit(0);

function summary(): object {
  const prefill = rows.filter((row) => row.kind === 'prefill');
  const ratios = prefill.flatMap(({ ratio }) => (ratio === null ? [] : [ratio]));
  const bodies = prefill.flatMap(({ queryLength, functionRatio }) =>
    queryLength >= 512 && functionRatio !== null ? [functionRatio] : [],
  );
  return {
    geomeanVsOrt: geomean(ratios),
    worstVsOrt: ratios.length === 0 ? null : Math.min(...ratios),
    vsFunctionBody512: geomean(bodies),
    boundaryMs,
  };
}

function geomean(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

function keep(row: (typeof rows)[number]): void {
  rows.push(row);
  save();
}

function save(): void {
  if (file === undefined) return;
  const machine = {
    adapter: adapterName,
    clock: isSoftware ? 'processor time of all threads' : 'wall time',
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    node: process.version,
    onnxruntime: ortNode.env.versions.node,
  };
  writeFileSync(`${file}.part`, `${JSON.stringify({ machine, rows, summary: summary() }, null, 2)}\n`);
  renameSync(`${file}.part`, file);
}

function print(first: string, ...cells: readonly (string | number | null)[]): void {
  const text = (cell: string | number | null): string =>
    cell === null ? '-' : typeof cell === 'string' ? cell : Number(cell.toPrecision(4)).toString();
  console.log([first.padEnd(44), ...cells.map((cell) => text(cell).padStart(9))].join(' '));
}

function argument(name: string): string | undefined {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
}
