package main

import (
	"fmt"
	"strings"

	"github.com/mdp/qrterminal/v3"
	"rsc.io/qr"
)

// maxQR is what a QR code holds of bytes at the lowest redundancy.
const maxQR = 2953

// qrCode is a text as a picture of half blocks, two rows of modules a line.
func qrCode(text string) (string, error) {
	if len(text) > maxQR {
		return "", fmt.Errorf("the QR code of %d bytes would be too large to read: at most %d", len(text), maxQR)
	}
	var b strings.Builder
	qrterminal.GenerateHalfBlock(text, qr.L, &b)
	return b.String(), nil
}
