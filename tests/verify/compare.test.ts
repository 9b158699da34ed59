/** Distances between tensors, against their definitions. */
import assert from 'node:assert/strict';
import { DistanceMeter } from '../../converter/verify/compare.js';

const float = (...values: number[]) => ({
  type: 'float32',
  dims: [values.length],
  data: Float32Array.from(values),
});

describe('distance of tensors', () => {
  it('accumulates over runs', () => {
    const meter = new DistanceMeter('y');
    meter.add(float(1, -4), float(1.5, -4));
    meter.add(float(2), float(2.25));
    const { maxAbs, maxRelative, relative, cosine, elements } = meter.result();
    assert.equal(maxAbs, 0.5);
    assert.equal(maxRelative, 0.125);
    assert.ok(Math.abs(relative - Math.sqrt(0.3125 / 21)) < 1e-12);
    assert.ok(Math.abs(cosine - 22 / Math.sqrt(21 * (2.25 + 16 + 2.25 ** 2))) < 1e-12);
    assert.equal(elements, 3);
  });

  it('is 0 for equal tensors, infinities included', () => {
    const meter = new DistanceMeter('y');
    meter.add(float(0, Infinity, -Infinity), float(0, Infinity, -Infinity));
    assert.deepEqual(
      { ...meter.result(), cosine: 1 },
      { ...meter.result(), maxAbs: 0, relative: 0, cosine: 1 },
    );
    assert.equal(meter.result().cosine, 1);
  });

  it('is infinite where only one side is finite, and says where the reference is NaN', () => {
    const meter = new DistanceMeter('y');
    meter.add(float(NaN, 1), float(3, 1));
    assert.equal(meter.result().undefinedInReference, 1);
    assert.equal(meter.result().maxAbs, 0);
    meter.add(float(1), float(NaN));
    assert.equal(meter.result().maxRelative, Infinity);
  });

  it('counts integers that differ', () => {
    const meter = new DistanceMeter('ids');
    const ids = (...values: bigint[]) => ({
      type: 'int64',
      dims: [values.length],
      data: BigInt64Array.from(values),
    });
    meter.add(ids(1n, 2n, 3n, 4n), ids(1n, 2n, 3n, 90n));
    assert.equal(meter.result().maxRelative, 0.25);
  });

  it('refuses other types and shapes', () => {
    const meter = new DistanceMeter('y');
    assert.throws(
      () => meter.add(float(1), float(1, 2)),
      /output "y" is float32 \[1\] in one model and float32 \[2\]/,
    );
  });
});
