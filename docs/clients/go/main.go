// Generates music, saves the samples as 32-bit float PCM while they are generated, and waits for the file.
//
//	go run . "house at 124 BPM" house.f32
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	export "example.com/listen/gen/dgx_music/export/v1"
	gateway "example.com/listen/gen/dgx_music/gateway/v1"
	storage "example.com/listen/gen/dgx_music/storage/v1"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: listen PROMPT FILE")
	}
	address := os.Getenv("DGX_MUSIC_GATEWAY_ADDRESS")
	if address == "" {
		address = "127.0.0.1:50050"
	}
	// Beyond loopback: credentials.NewClientTLSFromFile("ca.pem", "").
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx := context.Background()
	if token := os.Getenv("DGX_MUSIC_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	music := gateway.NewMusicServiceClient(connection)
	created, err := music.CreateGeneration(ctx, &storage.CreateGenerationRequest{Prompt: os.Args[1], DurationSeconds: 8})
	if err != nil {
		log.Fatal(err)
	}
	if err := saveAudio(ctx, music, created.Generation.Id, os.Args[2]); err != nil {
		log.Fatal(err)
	}
	if err := showProgress(ctx, music, created.Generation.Id); err != nil {
		log.Fatal(err)
	}
}

func showProgress(ctx context.Context, music gateway.MusicServiceClient, id string) error {
	stream, err := music.WatchGeneration(ctx, &storage.WatchGenerationRequest{Id: id})
	if err != nil {
		return err
	}
	for {
		change, err := stream.Recv()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		fmt.Println(change.Generation.State, change.Generation.Progress, change.Generation.FilePath)
	}
}

func saveAudio(ctx context.Context, music gateway.MusicServiceClient, id, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	stream, err := music.StreamAudio(ctx, &export.StreamAudioRequest{GenerationId: id})
	if err != nil {
		return err
	}
	hash, frame, bytesPerFrame := sha256.New(), int64(0), int64(0)
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return fmt.Errorf("the stream ended without its last message")
		} else if err != nil {
			return err
		}
		if header := message.GetHeader(); header != nil {
			bytesPerFrame = 4 * int64(header.Channels)
			fmt.Printf("%d Hz, %d channels, %d frames\n", header.SampleRateHz, header.Channels, header.ExpectedFrames)
		} else if chunk := message.GetChunk(); chunk != nil {
			if chunk.StartFrame != frame {
				return fmt.Errorf("expected frame %d, not %d", frame, chunk.StartFrame)
			}
			frame += int64(len(chunk.Pcm)) / bytesPerFrame
			hash.Write(chunk.Pcm)
			if _, err := file.Write(chunk.Pcm); err != nil {
				return err
			}
		} else if end := message.GetEnd(); end != nil {
			if sum := hex.EncodeToString(hash.Sum(nil)); end.Sha256 != sum || end.TotalFrames != frame {
				return fmt.Errorf("received %d frames with SHA-256 %s, not %d with %s", frame, sum, end.TotalFrames, end.Sha256)
			}
			return nil
		}
	}
}
