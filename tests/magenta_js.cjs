// node magenta_js.cjs NODE_MODULES FOLDER REQUEST.json: what magenta.js makes of a model in FOLDER, as JSON.
// REQUEST may have z (N, Z) to decode with the most likely tokens, tokens (N, T) to encode, and notes of a song to encode.
const fs = require("fs");
const http = require("http");
const path = require("path");
const [modules, folder, request] = process.argv.slice(2);
const { MusicVAE } = require(path.join(modules, "@magenta/music/node/music_vae"));
const { NoteSequence } = require(path.join(modules, "@magenta/music/node/protobuf"));
const tf = require(require.resolve("@tensorflow/tfjs", { paths: [path.join(modules, "@magenta/music")] }));

const server = http.createServer((asked, answer) => {
  const file = path.join(folder, path.basename(asked.url));
  fs.existsSync(file) ? answer.end(fs.readFileSync(file)) : answer.writeHead(404).end();
});

server.listen(0, "127.0.0.1", async () => {
  try {
    const model = new MusicVAE(`http://127.0.0.1:${server.address().port}`);
    await model.initialize();
    const { z, tokens, notes } = JSON.parse(fs.readFileSync(request, "utf8"));
    const result = {};
    if (z) {
      result.tokens = await (await model.decodeTensors(tf.tensor2d(z))).argMax(-1).array();
      const songs = await model.decode(tf.tensor2d(z.slice(0, 1)));
      result.notes = songs[0].notes.map((n) => [n.pitch, n.quantizedStartStep, n.quantizedEndStep]);
    }
    if (tokens) {
      const steps = tf.oneHot(tf.tensor2d(tokens, undefined, "int32"), model.dataConverter.depth);
      result.mu = await (await model.encodeTensors(steps)).array();
    }
    if (notes) {
      const song = NoteSequence.create({
        quantizationInfo: { stepsPerQuarter: 4 },
        totalQuantizedSteps: model.dataConverter.numSteps,
        notes: notes.map(([pitch, start, end, isDrum]) => (
          { pitch, quantizedStartStep: start, quantizedEndStep: end, isDrum })),
      });
      result.song = await (await model.encode([song])).array();
    }
    console.log("\n" + JSON.stringify(result));
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  }
  server.close();
});
