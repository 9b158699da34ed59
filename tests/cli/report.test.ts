/** The report is one file that needs nothing else, shows every site, and is safe whatever nodes are called. */
import assert from 'node:assert/strict';
import { convert, inspect, openModel } from '../../converter/index.js';
import { reportPage } from '../../converter/report/page.js';
import { openRuntime } from '../../converter/verify/runtime.js';
import { verify } from '../../converter/verify/verify.js';
import { attentionModel, classifierModel } from './small-models.js';

const NOTHING_PLANNED = {
  parameters: new Map(),
  left: new Map(),
  calibration: null,
  statistics: [],
  notes: [],
};

describe('report', function () {
  this.timeout(30_000);

  it('shows sites, pictures, differences and what was passed over', async () => {
    const model = openModel(attentionModel({ layers: 3 }));
    const conversion = convert(model, { mode: 'faithful' });
    const converted = openModel(conversion.toBytes());
    const verification = await verify(
      {
        original: { model, folder: '.' },
        converted: { model: converted, folder: '.' },
        mode: 'faithful',
        replaced: conversion.replaced,
      },
      await openRuntime(),
    );
    const page = reportPage({
      file: 'a<b>.onnx',
      model,
      inspection: conversion.inspection,
      result: {
        mode: 'faithful',
        output: 'out.onnx',
        conversion,
        converted,
        plan: { ...NOTHING_PLANNED, notes: ['a "note" & more'] },
        verification,
        unverified: null,
        metric: { name: 'accuracy', original: 0.9, converted: 0.89 },
      },
    });
    for (const index of [1, 2, 3]) assert.ok(page.includes(`id="site-${index}"`), `site ${index}`);
    assert.equal(page.match(/class="drift" cx/g)?.length, 3);
    assert.ok(page.includes('a&lt;b&gt;.onnx') && !page.includes('a<b>'));
    assert.ok(page.includes('a &quot;note&quot; &amp; more'));
    assert.ok(page.includes('accuracy, original'));
    assert.ok(page.includes('>SigmoidAttention</text>') && page.includes('>Softmax</text>'));
    assert.ok(!/https?:|<script|src=|@import|url\(/.test(page), 'the page refers to something outside');
  });

  it('says that a model holds no attention, and what it passed over', () => {
    const model = openModel(classifierModel());
    const page = reportPage({ file: 'c.onnx', model, inspection: inspect(model) });
    assert.match(page, /<b>0<\/b><span>attention sites/);
    assert.match(page, /Passed over: no attention/);
  });
});
