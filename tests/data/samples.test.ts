/** Sample data from files: every layout gives the model's inputs, and bad files give one sentence. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { zipSync } from 'fflate';
import proto from 'onnx-proto';
import { parseNpy } from '../../converter/data/npy.js';
import { runsOf, type InputInfo } from '../../converter/data/inputs.js';
import { openSamples } from '../../converter/data/source.js';
import type { Feeds } from '../../converter/data/tensor.js';
import { npy } from './npy-writer.js';

const INPUTS: readonly InputInfo[] = [
  { name: 'ids', type: 'int64', shape: ['batch', 'length'] },
  { name: 'scale', type: 'float32', shape: [2] },
];
const IDS = npy('<i8', [1, 3], new BigInt64Array([1n, 2n, 3n]));
const SCALE = npy('<f4', [2], new Float32Array([0.5, 2]));

describe('sample data', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'samples-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  const write = async (name: string, bytes: Uint8Array | string): Promise<string> => {
    const file = path.join(folder, name);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, bytes);
    return file;
  };
  const read = async (location: string, inputs = INPUTS): Promise<Feeds[]> => {
    const runs: Feeds[] = [];
    for await (const feeds of await openSamples(location, inputs)) runs.push(feeds);
    return runs;
  };

  it('reads cases of an .npz in the order of their numbers', async () => {
    const entry = (k: number): Record<string, Uint8Array> => ({
      [`case${k}.in.ids.npy`]: npy('<i8', [1, 1], new BigInt64Array([BigInt(k)])),
      [`case${k}.in.scale.npy`]: SCALE,
      [`case${k}.out.y.npy`]: SCALE,
    });
    const runs = await read(await write('a.npz', zipSync({ ...entry(10), ...entry(2), ...entry(0) })));
    assert.deepEqual(
      runs.map((run) => run['ids']!.data[0]),
      [0n, 2n, 10n],
    );
    assert.deepEqual(runs[0]!['scale']!.data, new Float32Array([0.5, 2]));
  });

  it('reads plain .npz, folders of .npy and folders of folders', async () => {
    await write('run1/ids.npy', IDS);
    await write('run1/scale.npy', SCALE);
    await write('run2/both.npz', zipSync({ 'ids.npy': IDS, 'scale.npy': SCALE, 'labels.npy': SCALE }));
    const runs = await read(folder);
    assert.equal(runs.length, 2);
    for (const run of runs) {
      assert.deepEqual(Object.keys(run), ['ids', 'scale']);
      assert.deepEqual(run['ids'], { type: 'int64', dims: [1, 3], data: new BigInt64Array([1n, 2n, 3n]) });
    }
  });

  it('reads ONNX test data by name or by position', async () => {
    const { TensorProto } = proto.onnx;
    const { DataType } = TensorProto;
    const ids = TensorProto.encode({
      name: 'ids',
      dims: [1, 2],
      dataType: DataType.INT64,
      int64Data: [7, -8],
    });
    const raw = new Uint8Array(new Float32Array([3, 4]).buffer);
    const scale = TensorProto.encode({ dims: [2], dataType: DataType.FLOAT, rawData: raw });
    await write('test_data_set_0/input_0.pb', ids.finish());
    await write('test_data_set_0/input_1.pb', scale.finish());
    await write('test_data_set_0/output_0.pb', 'not read');
    const [run] = await read(folder);
    assert.deepEqual(run!['ids']!.data, new BigInt64Array([7n, -8n]));
    assert.deepEqual(run!['scale']!.data, new Float32Array([3, 4]));
  });

  it('reads what a module yields, as often as asked', async () => {
    const module = `export async function* feeds(inputs) {
      for (let k = 0; k < 2; k++) yield {
        ids: { type: 'int64', dims: [1, 1], data: new BigInt64Array([BigInt(k)]) },
        scale: { type: 'float32', dims: [2], data: new Float32Array(2) } };
    }`;
    const source = await openSamples(await write('feeds.mjs', module), INPUTS);
    for (let walk = 0; walk < 2; walk++) {
      let count = 0;
      for await (const feeds of source) assert.equal(feeds['ids']!.data[0], BigInt(count++));
      assert.equal(count, 2);
    }
  });

  it('cuts a batch of samples into runs', () => {
    const inputs = [{ name: 'x', type: 'float32', shape: ['batch', 2] }];
    const x = {
      type: 'float32' as const,
      dims: [35, 2],
      data: Float32Array.from({ length: 70 }, (_, i) => i),
    };
    const runs = [...runsOf({ x }, inputs, 'here')];
    assert.deepEqual(
      runs.map((run) => run['x']!.dims),
      [
        [16, 2],
        [16, 2],
        [3, 2],
      ],
    );
    assert.equal(runs[2]!['x']!.data[0], 64);
    assert.equal([...runsOf({ x }, [{ ...inputs[0]!, shape: [7, 2] }], 'here')].length, 5);
    assert.equal([...runsOf({ x }, [{ ...inputs[0]!, shape: ['rows', 2] }], 'here')].length, 1);
  });

  it('turns Fortran order and big-endian numbers into row-major little-endian ones', () => {
    const columns = npy('<i4', [2, 3], new Int32Array([1, 4, 2, 5, 3, 6]), { fortran: true });
    assert.deepEqual(parseNpy(columns, 'a').data, new Int32Array([1, 2, 3, 4, 5, 6]));
    const big = npy('>i2', [2], new Int16Array([0x0100, 0x0200]));
    assert.deepEqual(parseNpy(big, 'a').data, new Int16Array([1, 2]));
  });

  const refusals: readonly [string, string, () => Uint8Array | string, RegExp][] = [
    [
      'a wrong type',
      'a.npz',
      () => zipSync({ 'ids.npy': SCALE, 'scale.npy': SCALE }),
      /"ids" needs int64 of rank 2, found float32 \[2\]/,
    ],
    ['a missing input', 'a.npz', () => zipSync({ 'ids.npy': IDS }), /no array for input "scale"; found ids/],
    [
      'a wrong size',
      'a.npz',
      () => zipSync({ 'ids.npy': IDS, 'scale.npy': npy('<f4', [3], new Float32Array(3)) }),
      /"scale" needs the shape \[2\], found float32 \[3\]/,
    ],
    [
      'a truncated array',
      'a.npz',
      () => zipSync({ 'ids.npy': IDS.subarray(0, -1), 'scale.npy': SCALE }),
      /ids: the array is cut short \(23 of 24 bytes\)/,
    ],
    [
      'a truncated archive',
      'a.npz',
      () => zipSync({ 'ids.npy': IDS }).subarray(0, 40),
      /a\.npz: not a readable \.npz archive/,
    ],
    ['text', 'a.txt', () => 'hello', /one array for a model with 2 inputs/],
    ['a module without feeds', 'a.mjs', () => 'export const x = 1;', /must export an iterable "feeds"/],
    [
      'strings',
      'a.npz',
      () => zipSync({ 'ids.npy': npy('<U3', [1], new Uint8Array(12)), 'scale.npy': SCALE }),
      /element type '<U3' is not supported/,
    ],
  ];
  for (const [what, name, bytes, sentence] of refusals) {
    it(`refuses ${what}`, async () => {
      await assert.rejects(read(await write(name, bytes())), sentence);
    });
  }

  it('refuses an empty folder and a missing path', async () => {
    await assert.rejects(read(folder), /no \.npz, \.npy or input_\*\.pb file there/);
    await assert.rejects(read(path.join(folder, 'nowhere')), /nowhere: no such file or folder/);
  });
});
