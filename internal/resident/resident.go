// Package resident gives back what a process of Kith has in memory and does not
// need once it has started: the pages of the program that only its start
// touched.
//
// It promises that nothing but time is lost if the operating system refuses,
// and refuses to touch a page that could not be read again from its file. Trim
// is of the whole process: main calls it when it has started.
package resident
