// Generates music, shows the progress, and saves the samples as 32-bit float PCM while they are generated.
//
//   npm install && npm run build && npm start "house at 124 BPM" 8 house.f32

import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { promisify } from "node:util";
import { credentials, Metadata } from "@grpc/grpc-js";
import { StreamAudioRequest } from "./gen/dgx_music/export/v1/export";
import { MusicServiceClient } from "./gen/dgx_music/gateway/v1/gateway";
import {
  CreateGenerationRequest,
  CreateGenerationResponse,
  GenerationState,
  WatchGenerationRequest,
} from "./gen/dgx_music/storage/v1/storage";

const address = process.env.DGX_MUSIC_GATEWAY_ADDRESS ?? "127.0.0.1:50050";
const metadata = new Metadata();
if (process.env.DGX_MUSIC_TOKEN) {
  metadata.set("authorization", `Bearer ${process.env.DGX_MUSIC_TOKEN}`);
}

async function main(prompt: string, durationSeconds: number, path: string): Promise<void> {
  // Beyond loopback: credentials.createSsl(readFileSync("ca.pem")).
  const music = new MusicServiceClient(address, credentials.createInsecure());
  const request = CreateGenerationRequest.create({ prompt, durationSeconds });
  const create = promisify<CreateGenerationRequest, Metadata, CreateGenerationResponse>(music.createGeneration.bind(music));
  const { generation } = await create(request, metadata);
  const id = generation!.id;
  await Promise.all([showProgress(music, id), saveAudio(music, id, path)]);
  music.close();
}

async function showProgress(music: MusicServiceClient, id: string): Promise<void> {
  for await (const { generation } of music.watchGeneration(WatchGenerationRequest.create({ id }), metadata)) {
    console.log(GenerationState[generation.state], generation.progress, generation.filePath);
    if (generation.state === GenerationState.GENERATION_STATE_FAILED) {
      throw new Error(generation.errorMessage);
    }
  }
}

async function saveAudio(music: MusicServiceClient, generationId: string, path: string): Promise<void> {
  const file = createWriteStream(path);
  const hash = createHash("sha256");
  let frame = 0n;
  let bytesPerFrame = 0;
  let isComplete = false;
  for await (const { header, chunk, end } of music.streamAudio(StreamAudioRequest.create({ generationId }), metadata)) {
    if (header) {
      bytesPerFrame = 4 * header.channels;
      console.log(`${header.sampleRateHz} Hz, ${header.channels} channels, ${header.expectedFrames} frames`);
    } else if (chunk) {
      if (chunk.startFrame !== frame) {
        throw new Error(`expected frame ${frame}, not ${chunk.startFrame}`);
      }
      frame += BigInt(chunk.pcm.length / bytesPerFrame);
      hash.update(chunk.pcm);
      file.write(chunk.pcm);
    } else if (end) {
      isComplete = true;
      const sha256 = hash.digest("hex");
      if (end.sha256 !== sha256 || end.totalFrames !== frame) {
        throw new Error(`received ${frame} frames with SHA-256 ${sha256}, not ${end.totalFrames} with ${end.sha256}`);
      }
    }
  }
  if (!isComplete) {
    throw new Error("the stream ended without its last message");
  }
  await new Promise((resolve) => file.end(resolve));
}

const [prompt = "house at 124 BPM", seconds = "8", path = "house.f32"] = process.argv.slice(2);
main(prompt, Number(seconds), path).catch((error: Error) => {
  console.error(`error: ${error.message}`);
  process.exit(1);
});
