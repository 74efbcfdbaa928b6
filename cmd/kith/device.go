package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type deviceCmd struct {
	List    deviceListCmd    `cmd:"" help:"List your devices."`
	Add     deviceAddCmd     `cmd:"" help:"On a new machine: become a device of yours. Shows a code for approve."`
	Approve deviceApproveCmd `cmd:"" help:"On a device of yours: take in the machine that shows this code."`
	Revoke  deviceRevokeCmd  `cmd:"" help:"Shut a device out, and renew the keys it had."`
}

type deviceListCmd struct{}

// Run lists the owner's devices.
func (*deviceListCmd) Run(a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	all, err := c.Devices(a.ctx)
	if err != nil {
		return err
	}
	if all == nil {
		all = []xrpc.Device{}
	}
	return a.answer(map[string]any{"devices": all}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "DEVICE\tNAME\tMAY\tSINCE\t")
		for _, d := range all {
			note := ""
			switch {
			case d.Revoked:
				note = "revoked " + day(d.RevokedMs)
			case d.This:
				note = "this one"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", short(d.ID), d.Name, strings.Join(d.Caps, " "), day(d.AddedMs), note)
		}
		t.Flush()
	})
}

func day(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.DateOnly) }

type deviceAddCmd struct {
	Name           string   `help:"What to call this machine. Standard: its host name." placeholder:"NAME"`
	Listen         []string `help:"Address to listen on, again for more. Standard: as run." placeholder:"MADDR" sep:"none"`
	NoMDNS         bool     `help:"Do not show this machine on the local network." name:"no-mdns"`
	PassphraseFile string   `help:"Lock the key file with the passphrase in this file." placeholder:"FILE"`
	CodeFile       string   `help:"Write code and addresses into this new file, too." placeholder:"FILE"`
}

// Run shows a code and waits for its approval on another device.
func (c *deviceAddCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if node.Initialised(a.Home) {
		return fmt.Errorf("%s: %w", a.Home, node.ErrIdentityExists)
	}
	pass, err := a.newPassphrase(c.PassphraseFile)
	if err != nil {
		return err
	}
	m := node.Machine{
		Home: a.Home, Passphrase: pass, Name: c.Name, Listen: c.Listen, NoMDNS: c.NoMDNS, Log: a.logger(),
	}
	id, err := m.Enrol(a.ctx, func(o node.Offer) error { return c.show(a, o) })
	if c.CodeFile != "" && !errors.Is(err, os.ErrExist) {
		err = errors.Join(err, os.Remove(c.CodeFile))
	}
	if err != nil {
		return err
	}
	return a.answer(id, func(w io.Writer) {
		line(w, "approved", "%s", id.DID)
		line(w, "", "fingerprint %s", id.Fingerprint)
		line(w, "files", "%s", id.Home)
		line(w, "next", "%s", a.kith("run"))
	})
}

// show tells what to carry to the other device, at once.
func (c *deviceAddCmd) show(a *app, o node.Offer) error {
	if c.CodeFile != "" {
		if err := writeNew(c.CodeFile, o); err != nil {
			return err
		}
	}
	a.say("waiting", "until another device of yours approves this machine")
	return a.answer(o, func(w io.Writer) {
		line(w, "code", "%s", o.Code)
		line(w, "approve", "on a device of yours: kith device approve %s", o.Code)
		for i, addr := range o.Addrs {
			line(w, first(i, "or with"), "--addr %s", addr)
		}
	})
}

// writeNew writes JSON into a file that must not exist.
func writeNew(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the code: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close())
}

type deviceApproveCmd struct {
	Code string `arg:"" help:"The code that the new machine shows."`
	Addr string `help:"Its address, where the local network does not show it." placeholder:"MADDR"`
}

// Run takes in the machine that shows the code.
func (c *deviceApproveCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	a.say("looking", "for the machine that shows the code")
	d, err := api.ApproveDevice(a.ctx, c.Code, c.Addr)
	if errors.Is(err, space.ErrUnavailable) {
		return &failure{
			code: exitFailed, name: "NotAvailable", message: reason(err),
			hint: "is `kith device add` still waiting there? --addr MADDR names the machine where the local network does not show it",
		}
	}
	if err != nil {
		return err
	}
	return a.answer(d, func(w io.Writer) {
		line(w, "approved", "%s  %s", short(d.ID), d.Name)
		line(w, "next", "there: kith run")
	})
}

type deviceRevokeCmd struct {
	ID string `arg:"" help:"The device's id, or its first 8 digits or more."`
}

// Run shuts a device out.
func (c *deviceRevokeCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	id, err := c.find(a, api)
	if err != nil {
		return err
	}
	d, err := api.RevokeDevice(a.ctx, id)
	if err != nil {
		return err
	}
	return a.answer(d, func(w io.Writer) {
		line(w, "revoked", "%s  %s", short(d.ID), d.Name)
		line(w, "note", "every space you are in gets new keys as soon as its keeper hears; what the device had read it keeps")
	})
}

// find completes a device's id.
func (c *deviceRevokeCmd) find(a *app, api *xrpc.Client) (string, error) {
	const least = 8
	want := strings.ToLower(strings.TrimSuffix(c.ID, "…"))
	if len(want) < least {
		return "", usage(a.kith("device list"), "%q: a device is named by its id, or by its first %d digits or more", c.ID, least)
	}
	all, err := api.Devices(a.ctx)
	if err != nil {
		return "", err
	}
	var found []string
	for _, d := range all {
		if strings.HasPrefix(d.ID, want) {
			found = append(found, d.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", a.noDevice(c.ID)
	case 1:
		return found[0], nil
	}
	return "", usage(a.kith("device list --json"), "%q: that is more than one device; give more digits", c.ID)
}

func (a *app) noDevice(id string) error {
	return &failure{
		code: exitNotFound, name: "DeviceNotFound", message: fmt.Sprintf("no device of yours has the id %s", id),
		hint: a.kith("device list"),
	}
}
