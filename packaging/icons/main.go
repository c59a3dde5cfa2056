// Command icons puts pictures of one icon into one file, as a system wants it: for Windows
// (.ico) or for macOS (.icns). Its arguments are the file to write, and PNG files.
//
// packaging/app/icons has the pictures, which scripts/icons makes of packaging/app/icon.svg.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "icons:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("name the file to write (.ico or .icns), and the PNG files that go into it")
	}
	pictures := make([][]byte, 0, len(args)-1)
	for _, path := range args[1:] {
		picture, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read a picture: %w", err)
		}
		pictures = append(pictures, picture)
	}
	var file []byte
	var err error
	switch extension := filepath.Ext(args[0]); extension {
	case ".ico":
		file, err = forWindows(pictures)
	case ".icns":
		file, err = forMac(pictures)
	default:
		err = fmt.Errorf("no system has icons in files called *%s; .ico and .icns are possible", extension)
	}
	if err == nil {
		err = os.WriteFile(args[0], file, 0o644)
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", args[0], err)
	}
	return nil
}

// side returns the length of a picture's sides, in pixels.
func side(picture []byte) (int, error) {
	config, err := png.DecodeConfig(bytes.NewReader(picture))
	if err != nil {
		return 0, fmt.Errorf("read a picture as PNG: %w", err)
	}
	if config.Width != config.Height {
		return 0, fmt.Errorf("a picture of %d by %d pixels is no square", config.Width, config.Height)
	}
	return config.Width, nil
}

// The largest picture in an icon of Windows, and the sizes of a file's header and of an entry of it
// (ICONDIR and ICONDIRENTRY, learn.microsoft.com, "The format of icon resources").
const (
	windowsLargest = 256
	windowsHeader  = 6
	windowsEntry   = 16
)

// forWindows lays pictures out as a .ico file:
//
//	0  u16 0, u16 1 (an icon), u16 number of pictures
//	6  for each: u8 width, u8 height (0: 256), u8 0, u8 0, u16 1 (planes), u16 32 (bits a pixel),
//	   u32 bytes, u32 offset
//	…  the pictures, as PNG
//
// All numbers are little-endian.
func forWindows(pictures [][]byte) ([]byte, error) {
	file := binary.LittleEndian.AppendUint16(nil, 0)
	file = binary.LittleEndian.AppendUint16(file, 1)
	file = binary.LittleEndian.AppendUint16(file, uint16(len(pictures)))
	offset := windowsHeader + windowsEntry*len(pictures)
	for _, picture := range pictures {
		size, err := side(picture)
		if err != nil {
			return nil, err
		}
		if size > windowsLargest {
			return nil, fmt.Errorf("a picture of %d pixels is too large; at most %d are possible", size, windowsLargest)
		}
		file = append(file, byte(size), byte(size), 0, 0)
		file = binary.LittleEndian.AppendUint16(file, 1)
		file = binary.LittleEndian.AppendUint16(file, 32)
		file = binary.LittleEndian.AppendUint32(file, uint32(len(picture)))
		file = binary.LittleEndian.AppendUint32(file, uint32(offset))
		offset += len(picture)
	}
	return append(file, bytes.Join(pictures, nil)...), nil
}

// macTypes are the types of pictures in PNG, by their side in pixels (Apple's IconFamily types).
var macTypes = map[int]string{16: "icp4", 32: "icp5", 64: "icp6", 128: "ic07", 256: "ic08", 512: "ic09", 1024: "ic10"}

// forMac lays pictures out as a .icns file: the word icns and the length of the file, then for each
// picture its type and its length, all with these 8 bytes, and the picture as PNG. Numbers are
// big-endian.
func forMac(pictures [][]byte) ([]byte, error) {
	const header = 8
	var body []byte
	for _, picture := range pictures {
		size, err := side(picture)
		if err != nil {
			return nil, err
		}
		kind, known := macTypes[size]
		if !known {
			return nil, fmt.Errorf("macOS has no icon of %d pixels", size)
		}
		body = append(body, kind...)
		body = binary.BigEndian.AppendUint32(body, uint32(header+len(picture)))
		body = append(body, picture...)
	}
	file := binary.BigEndian.AppendUint32([]byte("icns"), uint32(header+len(body)))
	return append(file, body...), nil
}
