/**
 * Compiles a fuzz target with everything it imports into one module whose blocks count how often they run.
 *
 * The module sees one global, `__blocks`: a Uint8Array with a counter for each function body, branch and loop body of the
 * project's own code (packages from node_modules are bundled but not counted).
 */
import { build } from 'esbuild';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';
import type { Target } from './target.js';

declare global {
  var __blocks: Uint8Array;
}

export interface Instrumented {
  readonly target: Target;
  /** Number of counted blocks: the used length of `__blocks`. */
  readonly blocks: number;
}

/**
 * @param entry path of the target's TypeScript file
 * @param folder where the compiled module is written
 */
export async function instrument(entry: string, folder: string): Promise<Instrumented> {
  let blocks = 0;
  const result = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    external: ['onnxruntime-node', 'onnxruntime-common'],
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    plugins: [
      {
        name: 'count-blocks',
        setup(setup) {
          setup.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
            if (path.includes('node_modules')) return undefined;
            const counted = countBlocks(ts.sys.readFile(path) ?? '', path, blocks);
            blocks = counted.next;
            return { contents: counted.text, loader: 'ts' };
          });
        },
      },
    ],
  });
  mkdirSync(folder, { recursive: true });
  const name = entry.replace(/^.*[\\/]/, '').replace(/\.ts$/, '');
  const file = join(folder, `${name}.${process.pid}.mjs`);
  ts.sys.writeFile(file, result.outputFiles[0]!.text);
  globalThis.__blocks = new Uint8Array(blocks);
  const { target } = (await import(pathToFileURL(file).href)) as { target: Target };
  return { target, blocks };
}

function countBlocks(text: string, path: string, first: number): { text: string; next: number } {
  let next = first;
  const { factory } = ts;
  const count = (): ts.Expression =>
    factory.createPostfixIncrement(
      factory.createElementAccessExpression(factory.createIdentifier('__blocks'), next++),
    );
  const counted = (statement: ts.Statement): ts.Statement => {
    const statements = ts.isBlock(statement) ? statement.statements : [statement];
    return factory.createBlock([factory.createExpressionStatement(count()), ...statements], true);
  };
  const countedValue = (value: ts.Expression): ts.Expression =>
    factory.createParenthesizedExpression(factory.createComma(count(), value));

  const transformer: ts.TransformerFactory<ts.SourceFile> = (context) => {
    const visit: ts.Visitor = (original) => {
      const node = ts.visitEachChild(original, visit, context);
      if (ts.isIfStatement(node)) {
        return factory.updateIfStatement(
          node,
          node.expression,
          counted(node.thenStatement),
          node.elseStatement && counted(node.elseStatement),
        );
      }
      if (ts.isConditionalExpression(node)) {
        return factory.updateConditionalExpression(
          node,
          node.condition,
          node.questionToken,
          countedValue(node.whenTrue),
          node.colonToken,
          countedValue(node.whenFalse),
        );
      }
      if (ts.isBinaryExpression(node) && isShortCircuit(node.operatorToken.kind)) {
        return factory.updateBinaryExpression(node, node.left, node.operatorToken, countedValue(node.right));
      }
      if (ts.isForStatement(node)) {
        return factory.updateForStatement(
          node,
          node.initializer,
          node.condition,
          node.incrementor,
          counted(node.statement),
        );
      }
      if (ts.isForOfStatement(node)) {
        return factory.updateForOfStatement(
          node,
          node.awaitModifier,
          node.initializer,
          node.expression,
          counted(node.statement),
        );
      }
      if (ts.isWhileStatement(node)) {
        return factory.updateWhileStatement(node, node.expression, counted(node.statement));
      }
      if (ts.isCaseClause(node)) {
        return factory.updateCaseClause(node, node.expression, [
          factory.createExpressionStatement(count()),
          ...node.statements,
        ]);
      }
      if (ts.isArrowFunction(node) && !ts.isBlock(node.body)) {
        return factory.updateArrowFunction(
          node,
          node.modifiers,
          node.typeParameters,
          node.parameters,
          node.type,
          node.equalsGreaterThanToken,
          countedValue(node.body),
        );
      }
      if (ts.isFunctionDeclaration(node) && node.body !== undefined) {
        return factory.updateFunctionDeclaration(
          node,
          node.modifiers,
          node.asteriskToken,
          node.name,
          node.typeParameters,
          node.parameters,
          node.type,
          counted(node.body) as ts.Block,
        );
      }
      if (ts.isMethodDeclaration(node) && node.body !== undefined) {
        return factory.updateMethodDeclaration(
          node,
          node.modifiers,
          node.asteriskToken,
          node.name,
          node.questionToken,
          node.typeParameters,
          node.parameters,
          node.type,
          counted(node.body) as ts.Block,
        );
      }
      return node;
    };
    return (source) => ts.visitEachChild(source, visit, context);
  };

  const source = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true);
  const result = ts.transform(source, [transformer]);
  const printed = ts.createPrinter().printFile(result.transformed[0]!);
  result.dispose();
  return { text: printed, next };
}

function isShortCircuit(kind: ts.SyntaxKind): boolean {
  return (
    kind === ts.SyntaxKind.AmpersandAmpersandToken ||
    kind === ts.SyntaxKind.BarBarToken ||
    kind === ts.SyntaxKind.QuestionQuestionToken
  );
}
