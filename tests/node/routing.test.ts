/** Which sessions go to the addon, and that the others stay as they were. */

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { existsSync } from 'node:fs';
import proto from 'onnx-proto';
import * as ort from 'onnxruntime-node';
import { libraryPath, register } from '../../op/node/index.js';
import { readModelImports } from '../../op/node/model-imports.js';
import { SigmoidSessionHandler } from '../../op/node/session-handler.js';
import { assertClose, DEFAULTS, encode, feeds, Float, floats, qkv, QUIET } from './models.js';

function handlerOf(session: ort.InferenceSession): unknown {
  return (session as unknown as { handler: unknown }).handler;
}

const plain = proto.onnx.ModelProto.encode({
  irVersion: 8,
  opsetImport: [{ domain: '', version: 17 }],
  graph: {
    name: 'plain',
    node: [{ opType: 'Relu', input: ['x'], output: ['y'] }],
    input: [{ name: 'x', type: { tensorType: { elemType: 1, shape: { dim: [{ dimParam: 'N' }] } } } }],
    output: [{ name: 'y', type: { tensorType: { elemType: 1, shape: { dim: [{ dimParam: 'N' }] } } } }],
  },
}).finish();

describe('routing of sessions', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sigmoid-routing-'));
  });
  after(() => rm(folder, { recursive: true }));

  it('sends a model with the operator to the addon, from path, bytes and ArrayBuffer', async () => {
    const bytes = encode({ inputs: qkv() });
    const path = join(folder, 'model é.onnx');
    await writeFile(path, bytes);
    const shared = new SharedArrayBuffer(bytes.byteLength + 8);
    new Uint8Array(shared).set(bytes, 4);
    const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
    const sessions = [
      await ort.InferenceSession.create(path),
      await ort.InferenceSession.create(bytes),
      await ort.InferenceSession.create(buffer),
      await ort.InferenceSession.create(shared, 4, bytes.byteLength),
    ];
    const answers = [];
    for (const session of sessions) {
      assert.ok(handlerOf(session) instanceof SigmoidSessionHandler);
      answers.push((await session.run(feeds())).Y!.data);
      await session.release();
    }
    for (const answer of answers) assert.deepEqual(answer, answers[0]);
  });

  it('leaves other models to the stock handler', async () => {
    const session = await ort.InferenceSession.create(plain);
    assert.ok(!(handlerOf(session) instanceof SigmoidSessionHandler));
    const x = new ort.Tensor('float32', [-1, 2], [2]);
    assert.deepEqual([...(await session.run({ x })).y!.data], [0, 2]);
  });

  it('leaves what is no model to the stock handler and its words', async () => {
    for (const bytes of [new Uint8Array(0), Uint8Array.of(1, 2, 3), new Uint8Array(100).fill(0xff)]) {
      await assert.rejects(
        ort.InferenceSession.create(bytes),
        /Model data pointer is null|protobuf parsing failed|No graph was found/,
      );
    }
    await assert.rejects(ort.InferenceSession.create(join(folder, 'absent.onnx')), /File doesn't exist/);
  });

  it('can be registered again without effect', async () => {
    register();
    register();
    const session = await ort.InferenceSession.create(encode({ inputs: qkv() }));
    assert.deepEqual((await session.run(feeds())).Y!.dims, [1, 4, 3, 8]);
  });

  it('serves the instance of onnxruntime-common that CommonJS sees', async () => {
    const cjs = createRequire(import.meta.url)('onnxruntime-node') as typeof ort;
    const session = await cjs.InferenceSession.create(encode({ inputs: qkv() }));
    assert.ok(handlerOf(session) instanceof SigmoidSessionHandler);
  });

  it('falls back to the function body, with one warning, when the addon cannot take the session', async () => {
    const portable = encode({
      inputs: qkv(4, 4),
      functionFor: { rank: 4, attributes: {} },
      attributes: DEFAULTS,
    });
    const warnings: Error[] = [];
    const note = (warning: Error): number => warnings.push(warning);
    process.on('warning', note);
    // Only stock onnxruntime-node knows outputs on a GPU; without a GPU provider it ignores the wish.
    const options = { preferredOutputLocation: 'gpu-buffer' } as const;
    const session = await ort.InferenceSession.create(portable, options);
    await ort.InferenceSession.create(portable, options);
    await new Promise(setImmediate);
    process.off('warning', note);
    assert.ok(!(handlerOf(session) instanceof SigmoidSessionHandler));
    assert.deepEqual(
      warnings.map(({ name }) => name),
      ['SigmoidAttentionWarning'],
    );
    assert.match(warnings[0]!.message, /preferredOutputLocation is 'gpu-buffer', must be 'cpu'/);
    const ours = await ort.InferenceSession.create(portable);
    const given = feeds({ kvHeads: 4 });
    assertClose((await session.run(given)).Y!, (await ours.run(given)).Y!);

    const kernelOnly = ort.InferenceSession.create(encode({ inputs: qkv() }), options);
    await assert.rejects(kernelOnly, /preferredOutputLocation is 'gpu-buffer', must be 'cpu'/);
  });

  it('does not fall back from a violated constraint, which a function body would not notice', async () => {
    const attributes = { ...DEFAULTS, softcap: new Float(-1) };
    const portable = encode({ inputs: qkv(4, 4), functionFor: { rank: 4, attributes: {} }, attributes });
    await assert.rejects(ort.InferenceSession.create(portable, QUIET), /softcap is -1, must be 0/);
  });

  it('gives the path of the library that other languages load', () => {
    assert.ok(isAbsolute(libraryPath()));
    assert.ok(existsSync(libraryPath()));
  });
});

describe('reading the imports of a model', () => {
  it('finds domains and functions behind a large graph, in a file and in bytes', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'sigmoid-imports-'));
    try {
      const big = encode({
        inputs: qkv(4, 4),
        functionFor: { rank: 4, attributes: {} },
        extra: {
          nodes: [],
          initializers: [{ name: 'w', dataType: 2, dims: [300_000], rawData: new Uint8Array(300_000) }],
        },
      });
      const path = join(folder, 'big.onnx');
      await writeFile(path, big);
      for (const model of [path, big]) {
        const imports = await readModelImports(model);
        assert.deepEqual([...imports!.domains.keys()].sort(), ['', 'ort.sigmoid']);
        assert.deepEqual([...imports!.functionDomains], ['ort.sigmoid']);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('gives up on what is no message, wherever it is cut off', async () => {
    const model = encode({ inputs: qkv() });
    for (let length = 1; length < model.length; length++) {
      const imports = await readModelImports(model.subarray(0, length));
      assert.ok(imports === undefined || !imports.domains.has('ort.sigmoid') || length > model.length - 20);
    }
    assert.equal(await readModelImports(Uint8Array.of(0xff, 0xff, 0xff)), undefined);
    assert.equal(await readModelImports(Uint8Array.of(0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)), undefined);
    assert.equal(await readModelImports(tmpdir()), undefined);
  });

  it('is quick on a message of very many small fields', async () => {
    const fields = new Uint8Array(2_000_000);
    for (let i = 0; i < fields.length; i += 2) fields.set([0x08, 0x01], i);
    assert.deepEqual((await readModelImports(fields))!.domains.size, 0);
  });
});

describe('inputs and outputs of the operator', () => {
  it('takes optional inputs at the end and in the middle, and gives the present keys and values', async () => {
    const past = { type: 1, dims: ['B', 2, 'P', 8] } as const;
    const present = { type: 1, dims: ['B', 2, 'P + M', 8] } as const;
    const model = encode({
      inputs: { ...qkv(), past_key: past, past_value: past, head_gain: { type: 1, dims: [4] } },
      outputs: { Y: { type: 1, dims: ['B', 4, 'N', 8] }, present_key: present, present_value: present },
    });
    const session = await ort.InferenceSession.create(model);
    const past_key = floats([1, 2, 6, 8], 7);
    const head_gain = new ort.Tensor('float32', [1, 0, 1, 1], [4]);
    const given = feeds();
    const result = await session.run({ ...given, past_key, past_value: past_key, head_gain });
    assert.deepEqual(result.present_key!.dims, [1, 2, 11, 8]);
    const keys = result.present_key!.data as Float32Array;
    assert.deepEqual(keys.subarray(0, 48), (past_key.data as Float32Array).subarray(0, 48));
    assert.deepEqual(keys.subarray(48, 88), (given.K.data as Float32Array).subarray(0, 40));
    assert.ok((result.Y!.data as Float32Array).subarray(24, 48).every((value) => value === 0));
  });
});
