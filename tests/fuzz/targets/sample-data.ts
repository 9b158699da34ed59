/** Hostile sample data: the first byte picks the format (.npy, .npz, TensorProto), the rest is the file. */
import { parseNpy } from '../../../converter/data/npy.js';
import { npzRuns, readNpz } from '../../../converter/data/npz.js';
import { parseTensorProto } from '../../../converter/data/pb.js';
import { bytesPerElement, elementCount, type Sample } from '../../../converter/data/tensor.js';
import { Violation, type Target } from '../target.js';

const NAME = 'hostile';

export const target: Target = {
  shape: 'bytes',
  maxLength: 1 << 12,
  run(input) {
    const bytes = input.subarray(1);
    switch ((input[0] ?? 0) % 4) {
      case 0:
        expectWhole(parseNpy(bytes, NAME));
        break;
      case 1:
        for (const run of npzRuns(bytes, NAME)) Object.values(run).forEach(expectWhole);
        break;
      case 2:
        Object.values(readNpz(bytes, NAME)).forEach(expectWhole);
        break;
      default:
        expectWhole(parseTensorProto(bytes, NAME).tensor);
    }
  },
  // Every message of these readers begins with the file's name; nothing else throws on purpose.
  isClear: (error) => (error as Error).message.startsWith(NAME),
};

function expectWhole({ type, dims, data }: Sample): void {
  if (data.length !== elementCount(dims) || data.byteLength !== data.length * bytesPerElement(type)) {
    throw new Violation(`${type} [${dims.join(', ')}] came with ${data.length} elements`);
  }
}
