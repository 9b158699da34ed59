/** Weights outside the model file: beside it, and handed over in memory. */

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import proto from 'onnx-proto';
import * as ort from 'onnxruntime-node';
import '../../op/node/index.js';
import { assertClose, encode, feeds, floats, qkv, QUIET } from './models.js';

const { DataLocation } = proto.onnx.TensorProto;

const weights = floats([1, 2, 5, 8], 9);
const bytes = new Uint8Array((weights.data as Float32Array).buffer);
const { Q, V } = qkv();

/** K is an initializer in the file weights.bin. */
const model = encode({
  inputs: { Q, V },
  fromInitializers: ['K'],
  extra: {
    nodes: [],
    initializers: [
      {
        name: 'K',
        dataType: 1,
        dims: [1, 2, 5, 8],
        dataLocation: DataLocation.EXTERNAL,
        externalData: [
          { key: 'location', value: 'weights.bin' },
          { key: 'offset', value: '0' },
          { key: 'length', value: String(bytes.byteLength) },
        ],
      },
    ],
  },
});

async function expected(): Promise<ort.Tensor> {
  const session = await ort.InferenceSession.create(encode({ inputs: qkv() }));
  return (await session.run({ ...feeds(), K: weights })).Y!;
}

async function answer(session: ort.InferenceSession): Promise<ort.Tensor> {
  const { Q: q, V: v } = feeds();
  return (await session.run({ Q: q, V: v })).Y!;
}

describe('external data', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sigmoid-external-'));
    await writeFile(join(folder, 'model.onnx'), model);
  });
  after(() => rm(folder, { recursive: true }));

  it('is read from memory', async () => {
    for (const data of [bytes, Buffer.concat([bytes])]) {
      const externalData = [{ path: 'weights.bin', data }];
      assertClose(await answer(await ort.InferenceSession.create(model, { externalData })), await expected());
      const path = join(folder, 'model.onnx');
      assertClose(await answer(await ort.InferenceSession.create(path, { externalData })), await expected());
    }
  });

  it('is read from the file beside the model', async () => {
    await writeFile(join(folder, 'weights.bin'), bytes);
    const session = await ort.InferenceSession.create(join(folder, 'model.onnx'));
    assertClose(await answer(session), await expected());
  });

  it('that is missing or too short is an error', async () => {
    await assert.rejects(ort.InferenceSession.create(model, QUIET), /weights\.bin/);
    const externalData = [{ path: 'weights.bin', data: bytes.subarray(0, 16) }];
    await assert.rejects(ort.InferenceSession.create(model, { ...QUIET, externalData }), Error);
  });
});
