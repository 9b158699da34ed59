/** Hostile models and archives, one property each: a clear error or a sound result, and nothing read or written outside. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zipSync } from 'fflate';
import proto from 'onnx-proto';
import { parseTensorProto } from '../../converter/data/pb.js';
import { readNpz } from '../../converter/data/npz.js';
import { convert, inspect, ModelFormatError, openModel } from '../../converter/index.js';
import { externalDataPath, openModelFile } from '../../converter/onnx/file.js';
import { concatenate, fieldHeader } from '../../converter/onnx/wire.js';
import { tensorNumbers } from '../../converter/onnx/tensor.js';

const { ModelProto, TensorProto } = proto.onnx;
const FLOAT = 1;

interface Node {
  readonly opType: string;
  readonly input: string[];
  readonly output: string[];
  readonly attribute?: object[];
}

const value = (name: string, dims: number[]): object => ({
  name,
  type: { tensorType: { elemType: FLOAT, shape: { dim: dims.map((dimValue) => ({ dimValue })) } } },
});

function model(node: readonly Node[], initializer: readonly object[] = [], more: object = {}): Uint8Array {
  const [q, k, v] = ['q', 'k', 'v'].map((name) => value(name, [1, 2, 4, 8]));
  const graph = { name: 'g', node, initializer, input: [q, k, v], output: [{ name: 'y' }] };
  const message = { irVersion: 8, opsetImport: [{ domain: '', version: 17 }], graph, ...more };
  return ModelProto.encode(ModelProto.fromObject(message)).finish();
}

/** Scores, weights and their product with the values. */
const attention = (): Node[] => [
  {
    opType: 'Transpose',
    input: ['k'],
    output: ['kt'],
    attribute: [{ name: 'perm', type: 7, ints: [0, 1, 3, 2] }],
  },
  { opType: 'MatMul', input: ['q', 'kt'], output: ['s'] },
  { opType: 'Softmax', input: ['s'], output: ['w'], attribute: [{ name: 'axis', type: 2, i: -1 }] },
  { opType: 'MatMul', input: ['w', 'v'], output: ['y'] },
];

const refuses = (bytes: Uint8Array, message: RegExp): void =>
  assert.throws(
    () => convert(openModel(bytes), { mode: 'faithful' }),
    (error) => error instanceof ModelFormatError && message.test(error.message),
  );

describe('hostile models', function () {
  this.timeout(60_000);

  it('as written here are converted when nothing is wrong', () => {
    assert.equal(convert(openModel(model(attention())), { mode: 'faithful' }).replaced.length, 1);
  });

  it('with a value that two nodes produce are refused', () => {
    refuses(
      model([...attention(), { opType: 'Relu', input: ['q'], output: ['s'] }]),
      /'s' is produced by two nodes/,
    );
  });

  it('with a cycle end in a refusal or an answer, not in a loop', () => {
    const nodes = attention();
    nodes[1] = { opType: 'MatMul', input: ['y', 'kt'], output: ['s'] };
    const own = [...attention(), { opType: 'Add', input: ['z', 'q'], output: ['z'] }];
    for (const bytes of [model(nodes), model(own)]) {
      try {
        inspect(openModel(bytes));
        convert(openModel(bytes), { mode: 'paper' });
      } catch (error) {
        assert.ok(error instanceof ModelFormatError, String(error));
      }
    }
  });

  it('with bodies nested a thousand deep are refused', () => {
    let body = new Uint8Array(0);
    for (let depth = 0; depth < 1000; depth++) {
      const attribute = concatenate([fieldHeader(6, body.length), body]);
      const node = concatenate([fieldHeader(5, attribute.length), attribute]);
      body = Uint8Array.from(concatenate([fieldHeader(1, node.length), node]));
    }
    refuses(concatenate([fieldHeader(7, body.length), body]), /nested deeper than 32/);
  });

  it('with a function that calls itself come to an end', () => {
    const call = { opType: 'F', domain: 'd', input: ['q'], output: ['y'] };
    const functions = [
      {
        name: 'F',
        domain: 'd',
        input: ['q'],
        output: ['y'],
        node: [call],
        opsetImport: [{ domain: 'd', version: 1 }],
      },
    ];
    const opsetImport = [
      { domain: '', version: 17 },
      { domain: 'd', version: 1 },
    ];
    const bytes = model([call], [], { functions, opsetImport });
    try {
      assert.equal(inspect(openModel(bytes)).sites.length, 0);
    } catch (error) {
      assert.ok(error instanceof ModelFormatError, String(error));
    }
  });

  it('with axes or permutations that do not exist are refused', () => {
    const nodes = attention();
    nodes[0]!.attribute![0] = { name: 'perm', type: 7, ints: [0, 1, 3, 7] };
    refuses(model(nodes), /has perm \[0, 1, 3, 7\], a permutation of 4 axes is needed/);
    const other = attention();
    other[2]!.attribute![0] = { name: 'axis', type: 2, i: 2 ** 31 };
    refuses(model(other), /names axis 2147483648, allowed are -4 to 3/);
  });

  it('with negative or enormous dimensions are not believed', () => {
    for (const dims of [[-1, -4], [2 ** 40, 2 ** 40], [-(2 ** 40)]]) {
      const tensor = { name: 't', dims, dataType: FLOAT, rawData: new Uint8Array(16) };
      const opened = openModel(model(attention(), [tensor]));
      const stored = opened.graph.initializers.get('t')!;
      assert.throws(() => tensorNumbers(stored, opened.source, () => null), ModelFormatError);
    }
  });

  it('with external data of impossible extent are refused', () => {
    const file = { size: 64, read: (start: number, end: number) => new Uint8Array(end - start) };
    for (const [offset, length] of [
      ['-8', '16'],
      ['0', '-16'],
      ['60', '16'],
      ['1e3', '16'],
      ['0', '8'],
    ]) {
      const externalData = [
        { key: 'location', value: 'x' },
        { key: 'offset', value: offset },
        { key: 'length', value: length },
      ];
      const tensor = { name: 't', dims: [4], dataType: FLOAT, dataLocation: 1, externalData };
      const opened = openModel(model(attention(), [tensor]), () => file);
      const stored = opened.graph.initializers.get('t')!;
      assert.throws(() => tensorNumbers(stored, opened.source, opened.external), ModelFormatError);
    }
  });
});

describe('external data', function () {
  this.timeout(60_000);
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'hostile-'));
    mkdirSync(join(folder, 'model'));
    writeFileSync(join(folder, 'secret.bin'), new Uint8Array(64));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const at = (location: string): string | null => externalDataPath(join(folder, 'model', 'm.onnx'), location);

  const place = (location: string): void => {
    const externalData = [{ key: 'location', value: location }];
    const tensor = { name: 't', dims: [16], dataType: FLOAT, dataLocation: 1, externalData };
    writeFileSync(join(folder, 'model', 'm.onnx'), model(attention(), [tensor]));
  };

  it('is found beside the model and below it', () => {
    place('x');
    mkdirSync(join(folder, 'model', 'below'));
    for (const name of ['own.bin', 'below/own.bin']) {
      writeFileSync(join(folder, 'model', name), new Uint8Array(64));
      assert.equal(at(name), join(folder, 'model', name));
    }
  });

  it('is not followed out of the folder, by path or by link', () => {
    place('x');
    symlinkSync(join(folder, 'secret.bin'), join(folder, 'model', 'link.bin'));
    symlinkSync(folder, join(folder, 'model', 'up'));
    const outside = [
      '../secret.bin',
      join(folder, 'secret.bin'),
      'link.bin',
      'up/secret.bin',
      './a/../../secret.bin',
    ];
    for (const location of [...outside, '', '.', 'nul\0byte']) assert.equal(at(location), null, location);
  });

  it('follows the links of a download cache, where model and data lie together', () => {
    mkdirSync(join(folder, 'blobs'));
    writeFileSync(join(folder, 'blobs', '1'), model(attention()));
    writeFileSync(join(folder, 'blobs', '2'), new Uint8Array(64));
    symlinkSync(join(folder, 'blobs', '1'), join(folder, 'model', 'm.onnx'));
    symlinkSync(join(folder, 'blobs', '2'), join(folder, 'model', 'm.onnx_data'));
    assert.notEqual(at('m.onnx_data'), null);
  });

  it('does not wait for a pipe', function () {
    if (process.platform === 'win32') {
      console.log('      skipped: Windows has no named pipes in folders');
      this.skip();
    }
    place('pipe');
    execFileSync('mkfifo', [join(folder, 'model', 'pipe')]);
    assert.equal(at('pipe'), null);
    assert.throws(() => openModelFile(join(folder, 'model', 'pipe')), /is not a regular file/);
  });

  it('is never copied from or to another place by convert', () => {
    place('../secret.bin');
    mkdirSync(join(folder, 'out', 'deep'), { recursive: true });
    const main = join(import.meta.dirname, '../../converter/cli/main.ts');
    const args = ['convert', join(folder, 'model', 'm.onnx'), '-o', join(folder, 'out', 'deep', 'c.onnx')];
    const { stderr, status } = spawnSync(
      process.execPath,
      ['--import', 'tsx', main, ...args, '--mode', 'faithful', '--copy-external-data'],
      { encoding: 'utf8' },
    );
    assert.equal(existsSync(join(folder, 'out', 'secret.bin')), false);
    assert.notEqual(status, null, stderr);
  });
});

describe('hostile sample data', () => {
  const npy = (shape: string, body: Uint8Array): Uint8Array => {
    const header = Buffer.from(`{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }\n`, 'latin1');
    const start = Buffer.from([
      0x93,
      0x4e,
      0x55,
      0x4d,
      0x50,
      0x59,
      1,
      0,
      header.length & 255,
      header.length >> 8,
    ]);
    return concatenate([start, header, body]);
  };

  it('that claims more than deflate can hold is refused before memory is taken', () => {
    const archive = zipSync({ 'x.npy': npy('(1,)', new Uint8Array(4)) }, { level: 9 });
    const view = new DataView(archive.buffer, archive.byteOffset);
    const directory = view.getUint32(archive.length - 6, true);
    view.setUint32(directory + 24, 0xf0000000, true);
    assert.throws(() => readNpz(archive, 'bomb.npz'), /bomb\.npz: .*which deflate cannot do/);
  });

  it('that lists billions of entries is refused', () => {
    const end = Buffer.alloc(22 + 20 + 56);
    end.writeUInt32LE(0x06064b50, 0);
    end.writeUInt32LE(0xffffffff, 32);
    end.writeUInt32LE(0x07064b50, 56);
    end.writeUInt32LE(0, 64);
    end.writeUInt32LE(0x06054b50, 76);
    end.writeUInt16LE(1, 84);
    assert.throws(() => readNpz(end, 'many.npz'), /many\.npz: not a readable \.npz archive/);
  });

  it('with a shape that its bytes do not fill is refused before memory is taken', () => {
    const archive = zipSync({ 'x.npy': npy('(1099511627776, 1024)', new Uint8Array(4)) });
    assert.throws(() => readNpz(archive, 'short.npz'), /cut short/);
    const tensor = { dims: [2 ** 40], dataType: FLOAT, floatData: [1] };
    const bytes = TensorProto.encode(TensorProto.fromObject(tensor)).finish();
    assert.throws(
      () => parseTensorProto(bytes, 'big.pb'),
      /big\.pb: \[1099511627776\] needs 1099511627776 values, found 1/,
    );
  });
});
